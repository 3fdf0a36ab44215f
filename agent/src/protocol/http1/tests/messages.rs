//! Connections of which everything is seen.

use expect_test::expect;

use super::*;

#[test]
fn keep_alive() {
    check(
        r"
        > GET /a HTTP/1.1\r\nHost: h\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello
        > POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc
        < HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n
        > DELETE /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No Content\r\n\r\n
        > end
        < end
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 over 5
            > 1 begins, 1 POST /b, 1 sent 3
            < 1 201, 1 over 0
            > 2 begins, 2 DELETE /c, 2 sent 0
            < 2 204, 2 over 0
        "#]],
    );
}

#[test]
fn heads_and_bodies_in_pieces() {
    check(
        r"
        > P
        > OST /a HTTP/1.1\r
        > \nContent-Len
        > gth: 4\r\n\r
        > \nab
        > cd
        < HTTP/1.
        < 1 200 OK\r\nContent-Length: 3\r\n
        < \r\n
        < x
        < yz
        close",
        expect![[r#"
            > 0 begins
            > 0 POST /a
            > 0 sent 4
            < 0 200
            < 0 over 3
        "#]],
    );
}

#[test]
fn pipelined() {
    check(
        r"
        > GET /0 HTTP/1.1\r\n\r\nPOST /1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nxyGET /2 HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nbb
        < HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /0, 0 sent 0, 1 begins@19, 1 POST /1, 1 sent 2, 2 begins@60, 2 GET /2, 2 sent 0
            < 0 200, 0 over 1, 1 404, 1 over 2
            < 2 500, 2 over 0
        "#]],
    );
}

#[test]
fn chunked() {
    check(
        r#"
        > POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y;z="q"\r\nwxyz\r\n0a\r\n0123456789\r\n0\r\nT: 1\r\nU: 2\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n\r\n
        < 3\r
        < \nab
        < c\r\n0
        < \r\n\r
        < \n
        > GET /lf HTTP/1.1\n\n
        < HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nab\n0\n\n
        close"#,
        expect![[r#"
            > 0 begins, 0 POST /a, 0 sent 14
            < 0 200
            < 0 over 3
            > 1 begins, 1 GET /lf, 1 sent 0
            < 1 200, 1 over 2
        "#]],
    );
}

#[test]
fn broken_chunks_are_not_followed() {
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n
        > POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n
        < HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n
        > GET /d HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 adrift
            > 0 over ? unseen, 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 adrift
            > 1 over ? unseen, 2 begins, 2 POST /c
            < 2 400, 2 over 0
            > 2 sent ? unseen, 3 begins, 3 GET /d, 3 sent 0
            < 3 204, 3 over 0
        "#]],
    );
}

#[test]
fn until_the_end_of_the_stream() {
    check(
        r"
        > GET /a HTTP/1.0\r\n\r\n
        < HTTP/1.0 200 OK\r\n\r\nsome
        < thing
        < end
        close",
        expect![[r#"
            > 0 begins, 0 GET /a 1.0, 0 sent 0
            < 0 200 1.0
            < 0 over 9 by close
        "#]],
    );
    check(
        r"
        > GET /reset HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\n\r\nsome
        close",
        expect![[r#"
            > 0 begins, 0 GET /reset, 0 sent 0
            < 0 200
            . 0 over 4 aborted
        "#]],
    );
    // The client closes by itself: perhaps it had all it wanted.
    let mut client = Connection::default();
    let script = r"
        < GET / HTTP/1.1\r\n\r\n
        > HTTP/1.1 200 OK\r\n\r\nsome
        < end
        close";
    expect![[r#"
        < 0 begins, 0 GET /, 0 sent 0
        > 0 200
        . 0 over 4 unseen
    "#]]
    .assert_eq(&run(&mut client, script));
}

#[test]
fn responses_without_a_body() {
    check(
        r"
        > HEAD /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n
        > HEAD /d HTTP/1.1\r\n\r\nGET /e HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx
        close",
        expect![[r#"
            > 0 begins, 0 HEAD /a, 0 sent 0
            < 0 200, 0 over 0
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 304, 1 over 0
            > 2 begins, 2 GET /c, 2 sent 0
            < 2 204, 2 over 0
            > 3 begins, 3 HEAD /d, 3 sent 0, 4 begins@20, 4 GET /e, 4 sent 0
            < 3 200, 3 over 0, 4 200, 4 over 1
        "#]],
    );
}

#[test]
fn interim_responses() {
    check(
        r"
        > PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n
        < HTTP/1.1 100 Continue\r\n\r\n
        > body
        < HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok
        close",
        expect![[r#"
            > 0 begins, 0 PUT /a
            < 0 interim 100
            > 0 sent 4
            < 0 interim 103, 0 interim 102, 0 200, 0 over 2
        "#]],
    );
}

#[test]
fn a_body_that_was_not_wanted() {
    // It may be sent or not.
    check(
        r"
        > PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n
        < HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > PUT /c HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n
        < HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n
        > body
        > GET /d HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 PUT /a
            < 0 417, 0 over 0
            > 0 sent ? unseen, 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
            > 2 begins, 2 PUT /c
            < 2 401, 2 over 0
            > 2 sent ? unseen, 3 begins, 3 GET /d, 3 sent 0
            < 3 200, 3 over 0
        "#]],
    );
}

#[test]
fn tunnels() {
    check(
        r"
        > GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n
        < HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi
        > GET /no HTTP/1.1\r\n\r\n
        > gap ?
        > end
        < end
        close",
        expect![[r#"
            > 0 begins, 0 GET /ws, 0 sent 0
            < 0 101, 0 over 0, unknown 4
            > unknown 20
        "#]],
    );
    check(
        r"
        > CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n
        < HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno
        > CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nGET /early HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\n
        > GET /inside HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 CONNECT h:443, 0 sent 0
            < 0 407, 0 over 2
            > 1 begins, 1 CONNECT h:443, 1 sent 0, 2 begins@39, 2 GET /early, 2 sent 0
            < 1 200, 1 over 0, 2 over ? unseen
            > unknown 24
            < unknown 38
        "#]],
    );
}

#[test]
fn targets_of_every_form() {
    check(
        r"
        > OPTIONS * HTTP/1.1\r\n\r\nGET http://h/p?q HTTP/1.1\r\n\r\nGET ?q HTTP/1.0\r\n\r\nM-SEARCH [::1]:80 HTTP/1.1\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 OPTIONS *, 0 sent 0, 1 begins@22, 1 GET http://h/p?q, 1 sent 0, 2 begins@51, 2 GET ?q 1.0, 2 sent 0, 3 begins@70, 3 M-SEARCH [::1]:80, 3 sent 0
            . 0 abandoned, 1 abandoned, 2 abandoned, 3 abandoned
        "#]],
    );
}

#[test]
fn lines_of_old() {
    // Blank lines before a request, bare line feeds, folded lines, spaces where none belong.
    check(
        r"
        > \r\n\r\nGET /a HTTP/1.1\nX: 1\n 2\nContent-Length:\n 3\n\nabc
        < \r\nHTTP/1.1 200\r\nContent-Length : 2\r\nContent-Length: 2, 2\r\n\r\nok
        > \r\n
        > GET  /b  HTTP/1.1\r\n\r\n
        < HTTP/1.1  200  OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins@4, 0 GET /a, 0 sent 3
            < 0 200, 0 over 2
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
}

#[test]
fn lengths_that_say_nothing_or_contradict_themselves() {
    for length in [
        "Content-Length: 2\\r\\nContent-Length: 3",
        "Content-Length: 2, 3",
        "Content-Length: +2",
        "Content-Length: 0x2",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Content-Length : 2",
        "Content-Length\\t: 2",
        "\\x0bContent-Length: 2",
        "Transfer-Encoding : chunked",
    ] {
        let script = format!(
            r"
            > POST /a HTTP/1.1\r\n{length}\r\n\r\n2\r\n
            > GET /smuggled HTTP/1.1\r\n\r\n
            < HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n
            > GET /b HTTP/1.1\r\n\r\n
            < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
            close"
        );
        let told = run(&mut Connection::default(), &script);
        assert!(!told.contains("smuggled"), "{length}: {told}");
        assert!(told.contains("0 over 0\n") && told.contains("1 over 0\n"), "{length}: {told}");
        assert!(told.contains("0 sent ? unseen"), "{length}: {told}");
    }
}

#[test]
fn a_coding_wins_over_a_length_in_an_answer_and_nothing_in_a_request() {
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n
        > POST /b HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n
        < HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n
        < end
        close",
        expect![[r#"
            > 0 begins, 0 POST /a
            < 0 200, 0 over 0
            > 0 sent ? unseen, 1 begins, 1 POST /b 1.0
            < 1 200 1.0, 1 adrift
            < 1 over ? unseen
            . 1 sent ? unseen
        "#]],
    );
}

#[test]
fn early_responses() {
    check(
        r"
        > POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc
        < HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n
        > defghijGET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /c HTTP/1.1\r\nCook
        < HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n
        < end
        close",
        expect![[r#"
            > 0 begins, 0 POST /a
            < 0 413, 0 over 0
            > 0 sent 10, 1 begins@7, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
            > 2 begins
            < 2 408, 2 over 0
            . 2 GET /c cut, 2 sent ? aborted
        "#]],
    );
}

#[test]
fn streams_that_end_too_soon() {
    check(
        r"
        > POST /half HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc
        > end
        < HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc
        < end
        close",
        expect![[r#"
            > 0 begins, 0 POST /half
            > 0 sent 3 aborted
            < 0 200
            < 0 over 3 aborted
        "#]],
    );
    check(
        "> GET /a HTTP/1.1\\r\\n\\r\\n\n> end\n< end\nclose",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 abandoned
        "#]],
    );
    check(
        "> GET /a HTTP/1.1\\r\\nHo\nclose",
        expect![[r#"
            > 0 begins
            . 0 GET /a cut, 0 sent ? aborted, 0 abandoned
        "#]],
    );
    check(
        "> GET /a HT\nclose",
        expect![[r#"
            > 0 begins
            . unknown 9, 0 abandoned
        "#]],
    );
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0, 1 begins@19, 1 GET /b, 1 sent 0
            < 0 200
            . 0 over 2 aborted, 1 abandoned
        "#]],
    );
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nConte
        < end
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200 cut, 0 adrift, 0 over ? aborted
        "#]],
    );
}

#[test]
fn what_is_not_http() {
    check(
        "> hello world\\r\\n\n< GET out\\r\\n\n> \\x16\\x03\\x01\\x02\\x00\\x01\nclose",
        expect![[r#"
            > unknown 13
            < unknown 9
            > unknown 6
        "#]],
    );
    check(
        "> EHLO\n>  mail.example\\r\\n\n< 250 hi\\r\\nclose",
        expect![[r#"
            > 0 begins
            > 0 mistaken, unknown 19
            < unknown 13
        "#]],
    );
    check(
        "> PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\nclose",
        expect![[r#"
            > unknown 24
        "#]],
    );
    check(
        "> GET /index.html\\r\\n\n< <html>\nclose",
        expect![[r#"
            > unknown 17
            < unknown 6
        "#]],
    );
    // One that is may follow.
    check(
        r"
        > (\x00*20)
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No\r\n\r\n
        > garbage
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No\r\n\r\n
        close",
        expect![[r#"
            > unknown 20
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 204, 0 over 0
            > unknown 7
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 204, 1 over 0
        "#]],
    );
}

#[test]
fn garbage_does_not_end_what_waits_for_its_answer() {
    check(
        r"
        > GET /a HTTP/1.1\r\n\r\n
        > body that nothing announced
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < garbage
        close",
        expect![[r#"
            > 0 begins, 0 GET /a, 0 sent 0
            > unknown 27
            < 0 200, 0 over 0
            > 1 begins, 1 GET /b, 1 sent 0
            < unknown 7, 1 adrift
            . 1 over ? unseen
        "#]],
    );
}

#[test]
fn responses_that_nothing_asked_for() {
    check(
        r"
        < HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n
        > GET /a HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408 Timeout\r\n\r\n
        > GET /b HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            < unknown 43
            > 0 begins, 0 GET /a, 0 sent 0
            < 0 200, 0 over 0, unknown 24
            > 1 begins, 1 GET /b, 1 sent 0
            < 1 200, 1 over 0
        "#]],
    );
}

#[test]
fn what_began_to_answer_a_mistaken_request_answers_no_other() {
    check(
        r"
        > GET /a
        < HTTP/1.1 20
        > \r\n
        > GET /b HTTP/1.1\r\n\r\n
        < 0 OK\r\nContent-Length: 1\r\n\r\nx
        > GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
        close",
        expect![[r#"
            > 0 begins
            > 0 mistaken, unknown 8
            > 1 begins, 1 GET /b, 1 sent 0
            < unknown 28, 1 adrift
            > 1 over ? unseen, 2 begins, 2 GET /c, 2 sent 0
            < 2 200, 2 over 0
        "#]],
    );
}

#[test]
fn what_a_proxy_says_first_is_no_message() {
    // The binary one in pieces, as who reads its head first does; then blank lines that are only that.
    for (script, expected) in [
        (
            r"
            > PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\nGET /a HTTP/1.1\r\n\r\n
            < HTTP/1.1 204 No\r\n\r\n
            > GET /b HTTP/1.1\r\n\r\n
            < HTTP/1.1 204 No\r\n\r\n
            close",
            expect![[r#"
                > 0 begins@40, 0 GET /a, 0 sent 0
                < 0 204, 0 over 0
                > 1 begins, 1 GET /b, 1 sent 0
                < 1 204, 1 over 0
            "#]],
        ),
        (
            r"
            > \r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x03
            > abcGET /a HTTP/1.1\r\n\r\n
            < HTTP/1.1 204 No\r\n\r\n
            close",
            expect![[r#"
                > 0 begins@3, 0 GET /a, 0 sent 0
                < 0 204, 0 over 0
            "#]],
        ),
        (
            r"
            > \r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET /a HTTP/1.1\r\n\r\n
            close",
            expect![[r#"
                > 0 begins@16, 0 GET /a, 0 sent 0
                . 0 abandoned
            "#]],
        ),
        (
            r"
            > \r\n
            > \r\nGET /a HTTP/1.1\r\n\r\n
            close",
            expect![[r#"
                > 0 begins@2, 0 GET /a, 0 sent 0
                . 0 abandoned
            "#]],
        ),
        (
            r"
            > \r\n\r\n\x00
            > \r\nquit
            > PROXY UNKNOWN (x*120)
            > PROXY /a HTTP/1.1\r\n\r\n
            close",
            expect![[r#"
                > unknown 11
                > unknown 241
                > 0 begins, 0 PROXY /a, 0 sent 0
                . 0 abandoned
            "#]],
        ),
    ] {
        check(script, expected);
    }
}

#[test]
fn lines_that_no_parser_takes_are_requests_all_the_same() {
    check(
        r"
        > GET /caf\xe9?\x01=\xff HTTP/1.1\r\nHost: h\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok
        > POST /a b\tc  HTTP/1.1 \r\nContent-Length: 2\r\n\r\nok
        < HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n
        > GET /z\xff HTTP/1.0\nX\x00: 1\n\n
        < HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n
        > GET /after HTTP/1.1\r\n\r\n
        < HTTP/1.1 204 No\r\n\r\n
        close",
        expect![[r#"
            > 0 begins, 0 GET /caf%E9?%01=%FF, 0 sent 0
            < 0 200, 0 over 2
            > 1 begins, 1 POST /a b%09c, 1 sent 2
            < 1 400, 1 over 0
            > 2 begins, 2 GET /z%FF 1.0 cut, 2 sent 0
            < 2 400, 2 over 0
            > 3 begins, 3 GET /after, 3 sent 0
            < 3 204, 3 over 0
        "#]],
    );
}

#[test]
fn a_connection_that_begins_anew_is_as_a_new_one() {
    let before = [
        r"> GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        r"> POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
        r"> GET /a HT",
        r"> gap ?",
        r"< GET /a HTTP/1.1\r\n\r\n",
    ];
    let script = r"> GET /c HTTP/1.1\r\n\r\n
        < HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for before in before {
        for new in [|| Connection::new(Limits::default()), || older(Some(Direction::Inbound))] {
            let mut connection = Connection::new(Limits::default());
            run(&mut connection, before);
            connection.begin_anew(new());
            let told = run(&mut connection, script);
            assert!(told.contains("0 over 0"), "{told}");
            assert_eq!(told, run(&mut new(), script), "{before}");
        }
    }
}

fn older(requests: Option<Direction>) -> Connection {
    Connection::older(Limits::default(), requests)
}
