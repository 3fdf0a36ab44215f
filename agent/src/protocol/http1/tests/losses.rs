//! Connections of which something is not seen: bytes not copied, operations missed, the beginning.

use expect_test::expect;

use super::*;

#[test]
fn heads_that_are_cut() {
    // The rest was not copied, and ends with a blank line or not.
    check(
        r"
        > GET /a HTTP/1.1\r\nCookie: x{5000}; a=b\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {5000}abc\r\n\r\n
        < ok
        > GET /b HTTP/1.1\r\nCookie: x{5000}
        < HTTP/1.1 304 OK\r\nContent-Length: 2\r\nX: {5000}abc\r\n\r\n
        > POST /c HTTP/1.1\r\nContent-Length: 9\r\nCookie: x{5000}; a=b\r\n\r\n
        > GET /body
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /line-too-long{5000} HTTP/1.1
        < HTTP/1.1 414 Long\r\nContent-Length: 0\r\n\r\n
        > GET /d HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /a cut, 0 sent ? unseen
            < 0 200 cut, 0 adrift
            > 0 over ? unseen, 1 begins, 1 GET /b cut
            < 1 304 cut, 1 adrift, 1 over ? unseen
            > 1 sent ? unseen, 2 begins, 2 POST /c cut
            < 2 200, 2 over 0
            < untold, unknown 40
            > 2 sent ? unseen, 3 begins, 3 GET /d, 3 sent 0
            < 3 200, 3 over 0
        "#]],
    );
}

#[test]
fn a_cut_head_says_nothing_of_its_body_for_certain() {
    // A transfer coding among the bytes that were not copied would win over the length.
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 5\r\nCookie: x{300}z\r\n\r\n
        > GET /body HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: {300}z\r\n\r\n
        < hello
        < HTTP/1.1 200 OK\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 POST /a cut
            < 0 200 cut, 0 adrift
            > 0 sent ? unseen, 0 over ? unseen, 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
}

#[test]
fn heads_longer_than_the_bound() {
    let limits = Limits { head_bytes: 64, ..Limits::default() };
    let script = r"
        > GET /a HTTP/1.1\r\nCookie: (x*100)\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCookie: (x*100)\r\n\r\n
        > GET /b HTTP/1.1\r\nCook
        > ie: (x*100)
        > (y*100)\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close";
    expect![[r#"
        > 0 begins, 0 GET /a cut, 0 sent ? unseen
        < 0 200 cut, 0 adrift
        > 0 over ? unseen, 1 begins
        > 1 GET /b cut
        > 1 sent ? unseen
        < 1 200, 1 over 0
        > 2 begins, 2 GET /c, 2 sent 0
        < 2 200, 2 over 0
    "#]]
    .assert_eq(&run(&mut Connection::new(limits), script));
}

#[test]
fn bodies_that_are_not_copied() {
    // Known lengths and single chunks stay exact, also where the next message follows.
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 9000\r\n\r\nabc{8989}tailtail
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\nab{8189}x\r\n0\r\n\r\n
        > POST /b HTTP/1.1\r\nContent-Length: 900\r\n\r\n{888}tailGET
        >  /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{5}
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 POST /a, 0 sent 9000
            < 0 200, 0 over 8192
            > 1 begins, 1 POST /b
            > 1 sent 900, unknown 11
            < 1 200, 1 over 5
            < untold, unknown 38
        "#]],
    );
}

#[test]
fn chunks_that_are_not_copied_are_not_followed() {
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nab{8000}tailtail
        < more\r\n0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nab{8000}tailtail
        < 0\r\nTrailer: x\r\n\r\n
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nab{8000}tailtail
        < 0\r\n\r\n
        > POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nab{8000}tailtail
        > GET /in-the-body HTTP/1.1\r\n\r\n
        > 0\r\n\r\n
        > GET /early HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /e HTTP/1.1\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 adrift
            < 0 over ? unseen
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 adrift
            > 1 over ? unseen, 2 begins, 2 GET /c, 2 sent 0
            < 2 200, 2 adrift
            < 2 over ? unseen
            > 3 begins, 3 POST /d
            > 3 sent ? unseen
            > unknown 23
            < 3 200, 3 over 0
            > 4 begins, 4 GET /e, 4 sent 0
            . 4 abandoned
        "#]],
    );
}

#[test]
fn from_the_middle_of_a_conversation() {
    // The content of a response looks like a request; that of a request, too.
    let script = r"
        < GET /content HTTP/1.1\r\n\r\n
        > rest of a body
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close";
    check_older(
        None,
        script,
        expect![[r#"
            < 0 begins, 0 GET /content, 0 sent 0
            > unknown 14, 0 adrift
            > 0 mistaken, 1 begins, 1 GET /a, 1 sent 0
            < 1 200, 1 over 0
            > 2 begins, 2 GET /b, 2 sent 0
            < 2 200, 2 over 0
        "#]],
    );
    check_older(
        Some(Direction::Inbound),
        script,
        expect![[r#"
            < unknown 25
            > unknown 14
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 over 0
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
    check_older(
        None,
        r"
        > ABC in capitals
        < HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc
        < GET
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > unknown 15
            < unknown 43
            < unknown 3
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 over 0
        "#]],
    );
}

#[test]
fn content_that_looks_like_a_response_ends_nothing() {
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n
        < HTTP/1.1 500 Content\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 adrift
            > 0 over ? unseen, 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
}

#[test]
fn gaps_of_known_size() {
    // Within a body they change nothing but the end's certainty.
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc
        > gap 4
        > hij
        < HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc
        < gap 7
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n
        < gap 30
        < xy\r\n0\r\n\r\n
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc
        < gap 8
        > GET /d HTTP/1.1\r\n\r\n
        < HTTP/1.0 200 OK\r\n\r\nabc
        < gap 8
        < end
        close",
        expect![[r#"
            > 0 begins, 0 POST /a
            > 0 sent 10
            < 0 200
            < 0 over 10 unseen
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 200
            < 1 over 32
            > 2 begins, 2 GET /c, 2 sent 0
            < 2 200
            < 2 over 10 unseen, unknown 1
            > 3 begins, 3 GET /d, 3 sent 0
            < 3 200 1.0
            < 3 over 11 by close
        "#]],
    );
}

#[test]
fn gaps_at_boundaries_and_in_heads() {
    check(
        r"
        > gap 10
        > GET /a HTTP/1.1\r\n\r\n
        < gap 10
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > gap 10
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\nHost: h\r\nCo
        > gap 10
        < HTTP/1.1 200 OK\r\nContent-
        < gap 10
        > GET /c HTTP/1.1\r\n\r\n
        < gap 10
        > GET /d HTTP/1.1\r\n\r\n
        < gap 10
        close",
        expect![[r#"
            > unknown 10
            > 0 begins, 0 GET /a, 0 sent 0
            < unknown 10, 0 adrift
            < 0 200, 0 over 0
            > unknown 10
            < untold, unknown 38
            > 1 begins
            > 1 GET /b cut
            < 1 200 cut, 1 adrift
            > 1 sent ? unseen, 1 over ? unseen, 2 begins, 2 GET /c, 2 sent 0
            < unknown 10, 2 adrift
            > 2 over ? unseen, 3 begins, 3 GET /d, 3 sent 0
            < unknown 10, 3 adrift
            . 3 over ? unseen
        "#]],
    );
}

#[test]
fn an_answer_after_a_missed_one_may_be_to_a_missed_request() {
    // That inbound bytes were missed, too, shows only with the next ones.
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 20\r\n\r\n
        < HTTP/1.1 100 Continue\r\n\r\n
        < gap 100
        < HTTP/1.1 206 Part\r\nContent-Length: 0\r\n\r\n
        > gap 60
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 POST /a
            < 0 interim 100
            < unknown 100, 0 adrift, 0 over ? unseen
            < unknown 40
            > 0 sent 20 unseen, unknown 40
            > 1 begins, 1 GET /c, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
}

#[test]
fn gaps_of_unknown_size() {
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc
        > gap ?
        > GET /content HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc
        < gap ?
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n
        < gap ?
        < HTTP/1.1 200 OK\r\n\r\n
        < 0\r\n\r\n
        > GET /c HTTP/1.1\r\n\r\n
        > gap ?
        < gap ?
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /d HTTP/1.1\r\n\r\n
        < HTTP/1.0 200 OK\r\n\r\nabc
        < gap ?
        < end
        close",
        expect![[r#"
            > 0 begins, 0 POST /a
            < 0 200
            < 0 adrift
            > 0 sent ? unseen, 0 over ? unseen, 1 begins, 1 GET /b, 1 sent 0
            < 1 200
            < 1 adrift
            > 1 over ? unseen, 2 begins, 2 GET /c, 2 sent 0
            < 2 over ? unseen
            < untold, unknown 38
            > 3 begins, 3 GET /d, 3 sent 0
            < 3 200 1.0
            < 3 over ? by close
        "#]],
    );
}

#[test]
fn a_loss_among_pipelined_requests_ends_the_story() {
    // Which response is whose cannot be told any more.
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab
        < gap 100
        < HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n
        > GET /d HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0, 1 begins@19, 1 GET /b, 1 sent 0, 2 begins@38, 2 GET /c, 2 sent 0
            < 0 200
            < 0 over 5 unseen, unknown 97, 1 over ? unseen, 2 over ? unseen
            < untold, unknown 39
            > unknown 19
            < untold, unknown 38
        "#]],
    );
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > gap 20
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0, 1 begins@19, 1 GET /b, 1 sent 0
            < 0 200, 0 over 0, 1 200, 1 over 0
            > unknown 20
            > unknown 19
            < untold, unknown 39
        "#]],
    );
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 20\r\n\r\n{60}\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 POST /a, 0 sent 20, unknown 40, unknown 4
            < 0 200, 0 over 0
            > unknown 19
            < untold, unknown 39
        "#]],
    );
}

#[test]
fn more_requests_than_are_followed() {
    let script = r"
        > (GET / HTTP/1.1\r\n\r\n*3)
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /late HTTP/1.1\r\n\r\n
        < (HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n*3)
        > GET /late HTTP/1.1\r\n\r\n
        < HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n
        close";
    let limits = Limits { outstanding: 2, ..Limits::default() };
    expect![[r#"
        > 0 begins, 0 GET /, 0 sent 0, 1 begins@18, 1 GET /, 1 sent 0, unknown 18
        < 0 200, 0 over 0
        > unknown 22
        < 1 200, 1 over 0, unknown 76
        > unknown 22
        < untold, unknown 39
    "#]]
    .assert_eq(&run(&mut Connection::new(limits), script));
    let script = r"
        > (GET / HTTP/1.1\r\n\r\n*200)
        < (HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n*200)
        close";
    let told = run(&mut Connection::default(), script);
    assert_eq!(told.matches("over 0").count(), 128);
    assert!(!told.contains("128 "), "{told}");
}

#[test]
fn numbers_are_never_used_again() {
    check(
        r"
        > POST
        >  no\r\n
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No\r\n\r\n
        close",
        expect![[r#"
            > 0 begins
            > 0 mistaken, unknown 9
            > 1 begins, 1 GET /a, 1 sent 0
            < 1 204, 1 over 0
        "#]],
    );
}

#[test]
fn a_connection_whose_end_nothing_told() {
    let script = "> GET /a HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 200 OK\\r\\n\\r\\nabc\nvanish";
    check(
        script,
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200
            . 0 over 3 unseen
        "#]],
    );
    let script = "> GET /a HTTP/1.1\\r\\n\\r\\n\nvanish";
    check(
        script,
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            . 0 abandoned
        "#]],
    );
}

#[test]
fn a_request_whose_beginning_was_missed_is_none() {
    check(
        r"
        > gap 1
        > ELETE /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > unknown 1
            > unknown 21
            < unknown 38
            > 0 begins, 0 GET /b, 0 sent 0
            < 0 200, 0 over 0
        "#]],
    );
}

#[test]
fn a_response_behind_a_missed_request_and_a_missed_response_is_nobodys() {
    for losses in ["< gap 38\n> gap 19", "> gap 19\n< gap 38", "> gap ?\n< gap ?"] {
        let script = format!(
            r"
            > GET /a HTTP/1.1\r\n\r\n
            {losses}
            < HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n
            > GET /c HTTP/1.1\r\n\r\n
            < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
            close"
        );
        let told = run(&mut Connection::default(), &script);
        assert!(told.contains("0 over ? unseen") && !told.contains("500"), "{losses}: {told}");
        assert!(told.contains("1 200, 1 over 0"), "{losses}: {told}");
    }
}

#[test]
fn a_request_that_is_none_although_it_was_answered() {
    check(
        r"
        > GET /a
        < HTTP/1.1 101 Switching\r\n\r\n
        close",
        expect![[r#"
            > 0 begins
            < 0 101, 0 over 0, unknown 6
        "#]],
    );
    check(
        r"
        > GET /a
        < HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\n
        > \r\n
        < too short
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins
            < 0 400
            > unknown 8
            < 0 over 9
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
}
