//! What a person sees.

use std::sync::Mutex;

use expect_test::{Expect, expect};

use super::*;
use crate::span::attributes::Attributes;
use crate::span::model::{Confidence, Kind, Method, Parent, Resource, StatusCode, UnixNs};

const BASE: u64 = 1_790_000_000_000_000_000;

fn resource(name: &str) -> Arc<Resource> {
    Arc::new(Resource { attributes: Attributes::default(), service_name: name.to_owned() })
}

fn span(service: &str, id: u8, parent: Option<u8>, kind: Kind, range_us: (u64, u64)) -> Span {
    let mut attributes = Attributes::default();
    if kind == Kind::Client {
        attributes.text("url.full", "http://127.0.0.1:8001/api");
    } else {
        attributes.text("url.path", "/api");
    }
    attributes.int("http.response.status_code", 200);
    let (method, confidence) = (Method::Thread, Confidence::Exact);
    let link = |id| Parent { span_id: SpanId([id; 8]), method, confidence, remote: false };
    Span {
        resource: resource(service),
        trace_id: TraceId([0xab; 16]),
        span_id: SpanId([id; 8]),
        parent: parent.map(link),
        trace_state: String::new(),
        trace_flags: 1,
        kind,
        name: "GET".into(),
        start: UnixNs(BASE + range_us.0 * 1000),
        end: UnixNs(BASE + range_us.1 * 1000),
        attributes,
        events: Vec::new(),
        links: Vec::new(),
        status: StatusCode::Unset,
        status_message: String::new(),
    }
}

fn tree() -> Vec<Span> {
    let mut failed = span("front", 4, Some(1), Kind::Client, (9_000, 12_300));
    failed.status = StatusCode::Error;
    failed.attributes = Attributes::default();
    failed.attributes.text("url.full", "http://127.0.0.1:9/\x1b[2Jgone");
    failed.attributes.text("error.type", "connection_reset");
    if let Some(parent) = &mut failed.parent {
        parent.confidence = Confidence::Inferred;
    }
    vec![
        span("back", 3, Some(2), Kind::Server, (1_100, 7_900)),
        span("front", 2, Some(1), Kind::Client, (1_000, 8_100)),
        failed,
        span("front", 1, None, Kind::Server, (0, 12_400)),
    ]
}

fn check(width: usize, spans: &[Span], expected: &Expect) {
    let spans: Vec<&Span> = spans.iter().collect();
    let mut text = String::new();
    render::trace(&spans, width, false, &mut text);
    expected.assert_eq(&text);
}

#[test]
fn a_tree_with_a_waterfall() {
    check(
        100,
        &tree(),
        &expect![[r#"
            14:13:20.000Z  trace abababababababababababababababab  4 spans
            front  GET /api 200                                               12.4 ms  ████████████████████████
            ├─ front → GET 127.0.0.1:8001/api 200                             7.10 ms   ██████████████▋
            │  └─ back  GET /api 200                                          6.80 ms    █████████████▎
            └─ front → GET 127.0.0.1:9/·[2Jgone connection_reset ?thread      3.30 ms                   ██████▊

        "#]],
    );
}

#[test]
fn a_narrow_terminal_gets_no_waterfall() {
    check(
        50,
        &tree(),
        &expect![[r#"
            14:13:20.000Z  trace abababababababababababababababab  4 spans
            front  GET /api 200                       12.4 ms
            ├─ front → GET 127.0.0.1:8001/api 200     7.10 ms
            │  └─ back  GET /api 200                  6.80 ms
            └─ front → GET 127.0.0.1:9/·[2Jgone co…   3.30 ms

        "#]],
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_nothing_is_obeyed() {
    for width in 0..140 {
        let spans = tree();
        let spans: Vec<&Span> = spans.iter().collect();
        let mut text = String::new();
        render::trace(&spans, width, false, &mut text);
        for line in text.lines().skip(1) {
            let columns = unicode_width::UnicodeWidthStr::width(line);
            assert!(columns < width.max(25), "{columns} of {width}: {line}");
        }
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

#[test]
fn a_parent_of_itself_and_a_circle_do_not_hang() {
    let mut spans = tree();
    for (span, parent) in spans.iter_mut().zip([4, 3, 2, 1]) {
        let (method, confidence) = (Method::Thread, Confidence::Exact);
        let span_id = SpanId([parent; 8]);
        span.parent = Some(Parent { span_id, method, confidence, remote: false });
    }
    let spans: Vec<&Span> = spans.iter().collect();
    render::trace(&spans, 80, true, &mut String::new());
}

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while locked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn lines(&self) -> usize {
        let bytes = self.0.lock().expect("no panic while locked");
        bytes.iter().filter(|byte| **byte == b'\n').count()
    }
}

#[test]
fn a_trace_waits_for_its_root_but_not_for_ever() {
    let screen = Screen::default();
    let options = Options { color: false, width: Some(100) };
    let mut console = Console::new(Box::new(screen.clone()), options);
    let begun = Instant::now();
    let mut spans = tree();
    let root = spans.pop().expect("there are four");
    console.accept(&spans.into(), begun);
    console.tick(begun + QUIET);
    assert_eq!(screen.lines(), 0, "the root is still under way");
    console.accept(&vec![root].into(), begun + QUIET);
    assert_eq!(console.next_deadline(), Some(begun + QUIET + QUIET));
    console.tick(begun + QUIET + QUIET);
    assert_eq!(screen.lines(), 6);
    assert_eq!(console.next_deadline(), None);

    let orphan = span("front", 2, Some(1), Kind::Client, (0, 1));
    console.accept(&vec![orphan].into(), begun);
    console.tick(begun + PATIENCE);
    assert_eq!(screen.lines(), 9, "a span leaves within a second");
}

/// Has room for so many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_waits_is_neither_written_nor_lost() {
    let options = Options { color: false, width: Some(100) };
    let mut console = Console::new(Box::new(Disk(1000)), options);
    let begun = Instant::now();
    let mut told = |at, batch: Vec<Span>| {
        console.accept(&batch.into(), at);
        console.tick(at);
        let Drawn { written, lost, error } = console.drawn();
        (written, lost, error.is_some())
    };
    assert_eq!(told(begun, tree()), (0, 0, false));
    assert_eq!(told(begun + QUIET, Vec::new()), (4, 0, false));
    assert_eq!(told(begun + QUIET, tree()), (0, 0, false));
    assert_eq!(told(begun + 2 * QUIET, Vec::new()), (0, 4, true));
    assert_eq!(told(begun + 2 * QUIET, tree()), (0, 0, false));
    console.finish();
    assert_eq!(console.drawn().lost, 4);
}
