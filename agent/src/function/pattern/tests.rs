//! What patterns mean, and what is said of those that mean nothing.

use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Patterns, String> {
    Patterns::parse(&[text]).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })
}

const EXE: ModuleName<'_> = ModuleName::Executable("app");
const SSL: ModuleName<'_> = ModuleName::Library("libssl.so.3");

#[test]
fn names_are_matched() {
    for (pattern, name, expected) in [
        ("main", "main", true),
        ("main", "main2", false),
        ("ns::*", "ns::Class::method", true),
        ("*::method", "ns::Class::method", true),
        ("main.*", "main.(*Server).handle", true),
        ("main.(*Server).handle", "main.(*Server).handle", true),
        ("*/http.*", "net/http.(*conn).serve", true),
        ("net/*serve", "net/http.(*conn).serve", true),
        ("main.Map[...]", "main.Map[...]", true),
        ("app::run::{{closure}}", "app::run::{{closure}}", true),
        ("app::{run,stop}", "app::stop", true),
        ("f?o", "foo", true),
        ("Main", "main", false),
        ("ns::operator!=", "ns::operator!=", true),
        ("operator!", "operator!", true),
        ("ns::V::operator[]", "ns::V::operator[]", true),
        ("memcpy@2.14", "memcpy@2.14", true),
    ] {
        let patterns = parse(pattern).expect(pattern);
        assert_eq!(patterns.select(EXE, name).is_some(), expected, "{pattern} {name}");
        assert!(patterns.select(SSL, name).is_none(), "{pattern} is not about libraries");
    }
}

#[test]
fn modules_are_matched() {
    for (pattern, exe, ssl) in [
        ("SSL_read", true, false),
        ("libssl*!SSL_*", false, true),
        ("*!SSL_*", true, true),
        ("app!SSL_*", true, false),
        ("lib{ssl,z}.so*!SSL_read", false, true),
    ] {
        let patterns = parse(pattern).expect(pattern);
        assert_eq!(patterns.select(EXE, "SSL_read").is_some(), exe, "{pattern}");
        assert_eq!(patterns.select(SSL, "SSL_read").is_some(), ssl, "{pattern}");
        assert_eq!((patterns.are_about(EXE), patterns.are_about(SSL)), (exe, ssl), "{pattern}");
    }
}

#[test]
fn what_is_left_out_is() {
    let patterns = Patterns::parse(&["*!SSL_*", "!SSL_free", "!libssl*!SSL_new", "SSL_free@ret"]);
    let patterns = patterns.expect("good");
    let names = ["SSL_read", "SSL_free", "SSL_new"];
    let selected = |module| names.map(|name| patterns.select(module, name).is_some());
    assert_eq!(selected(EXE), [true, false, true]);
    assert_eq!(selected(SSL), [true, false, false]);
    assert_eq!(patterns.wanted().len(), 2);
}

#[test]
fn options_are_read() {
    let options = |text: &str| parse(text).expect(text).wanted()[0].options().clone();
    assert_eq!(options("f"), Options::default());
    let all = options("f@args=a,b.c,ret,depth=3,min=1ms,if=a.n>=0x10,rate=50/s,in-request,stack");
    assert_eq!(
        all,
        Options {
            arguments: Arguments::Only(vec!["a".to_owned(), "b.c".to_owned()]),
            returned: true,
            depth: Some(3),
            minimum: Some(Duration::from_millis(1)),
            condition: Some(Condition {
                path: "a.n".to_owned(),
                comparison: Comparison::GreaterOrEqual,
                value: 16,
            }),
            rate: Some(50),
            in_request: true,
            stack: true,
        }
    );
    assert_eq!(options("f@args=none").arguments, Arguments::None);
    assert_eq!(options("f@args=auto,stack").arguments, Arguments::Auto);
    // The first name is one, whatever it is called.
    assert_eq!(options("f@args=ret").arguments, Arguments::Only(vec!["ret".to_owned()]));
    for (text, comparison, value) in [
        ("n==-1", Comparison::Equal, -1),
        ("n=1", Comparison::Equal, 1),
        ("n!=1", Comparison::NotEqual, 1),
        ("n<1", Comparison::Less, 1),
        ("n<=1", Comparison::LessOrEqual, 1),
        ("n>1", Comparison::Greater, 1),
    ] {
        let condition = options(&format!("f@if={text}")).condition.expect(text);
        assert_eq!((condition.comparison, condition.value), (comparison, value), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("", "it names no function"),
        ("@ret", "it names no function"),
        ("!", "it names no function"),
        ("lib!", "it names no function"),
        ("f[*", "cannot use the function pattern `f[*`: error parsing glob"),
        ("f@", "cannot use `` in the function pattern `f@`: expected one of args=auto"),
        ("f@foo", "cannot use `foo` in the function pattern `f@foo`: expected one of args=auto"),
        ("f@foo=1", "cannot use `foo=1`"),
        ("f@ret=1", "cannot use `ret=1`"),
        ("f@args=", "cannot use `args=` in the function pattern `f@args=`: expected auto, none"),
        ("f@args=a..b", "expected auto, none"),
        ("f@depth=9", "a number from 0 to 8"),
        ("f@min=1", "a time as 500us"),
        ("f@min=ms", "a time as 500us"),
        ("f@if=size", "as `if=size>4096`"),
        ("f@if=size>big", "as `if=size>4096`"),
        ("f@if=>1", "as `if=size>4096`"),
        ("f@rate=0/s", "as 100/s"),
        ("f@rate=5", "as 100/s"),
        ("!f", "only say what is left out"),
        ("!f@ret", "it says what is left out"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(Patterns::parse::<&str>(&[]).expect("none is fine").is_empty());
}
