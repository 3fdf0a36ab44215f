//! What must hold for any spans, whatever they were made of.

use std::collections::BTreeMap;

use crate::span::model::{Kind, Span, SpanId};

/// Panics if spans contradict each other. Times are trusted only where records had real ones.
pub(crate) fn check(spans: &[Span], real_times: bool) {
    let by_id: BTreeMap<SpanId, &Span> = spans.iter().map(|span| (span.span_id, span)).collect();
    assert_eq!(by_id.len(), spans.len(), "ids are unique");
    for span in spans {
        assert!(span.start <= span.end, "{span:?}");
        assert!(span.trace_id.is_valid() && span.span_id.is_valid(), "{span:?}");
        let Some(link) = span.parent else { continue };
        let Some(parent) = by_id.get(&link.span_id) else {
            assert!(link.is_told(), "a parent that was never handed out: {span:?}");
            continue;
        };
        if link.is_told() {
            // Anybody can name anything.
            continue;
        }
        assert_eq!(parent.trace_id, span.trace_id, "{span:?} below {parent:?}");
        assert_ne!(parent.span_id, span.span_id, "its own parent");
        match link.method.as_str() {
            "thread" | "goroutine" | "nginx_request" | "resume" => assert!(matches!(
                (parent.kind, span.kind),
                (Kind::Server, Kind::Client | Kind::Internal) | (Kind::Internal, Kind::Client)
            )),
            "stack" => {
                assert_eq!((parent.kind, span.kind), (Kind::Internal, Kind::Internal));
                assert!(span.end <= parent.end || !real_times, "{span:?} ends behind {parent:?}");
            }
            _ => assert_eq!((parent.kind, span.kind), (Kind::Client, Kind::Server)),
        }
        if !real_times {
            continue;
        }
        assert!(parent.start <= span.start, "{span:?} starts before {parent:?}");
        // A client that has left, or whose end is only guessed, ends when it will.
        let read = ["error.type", "remora.end.inferred"];
        if span.kind == Kind::Server && read.iter().all(|key| parent.attributes.get(key).is_none())
        {
            assert!(span.end <= parent.end, "{span:?} ends behind {parent:?}");
        }
    }
}
