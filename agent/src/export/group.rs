//! Spans of one request, grouped by the process they come from.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use crate::span::model::{Resource, Span};

/// The spans of one resource.
pub(super) struct Group<'a> {
    pub(super) resource: &'a Arc<Resource>,
    pub(super) spans: Vec<&'a Span>,
}

/// Groups spans by resource, both in the order of their first appearance.
pub(super) fn by_resource<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<Group<'a>> {
    let spans = spans.into_iter();
    // Most often all are of one process.
    let (mut room, _) = spans.size_hint();
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut places: HashMap<*const Resource, usize, foldhash::fast::RandomState> =
        HashMap::default();
    let mut last = 0;
    for span in spans {
        // Spans of one process come in runs.
        let is_same = |group: &Group<'_>| Arc::ptr_eq(group.resource, &span.resource);
        if !groups.get(last).is_some_and(is_same) {
            last = *places.entry(Arc::as_ptr(&span.resource)).or_insert_with(|| {
                let spans = Vec::with_capacity(mem::take(&mut room));
                groups.push(Group { resource: &span.resource, spans });
                groups.len() - 1
            });
        }
        if let Some(group) = groups.get_mut(last) {
            group.spans.push(span);
        }
    }
    groups
}

/// The instrumentation scope of every span.
pub(super) const SCOPE_NAME: &str = "remora";
/// Its version.
pub(super) const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");
