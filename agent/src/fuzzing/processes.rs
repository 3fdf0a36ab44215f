//! What a process's files say of it, which it has written itself or its container has: what is mapped, who it
//! is, its arguments, environment and control groups, the cache of its loader, what its file asks for.
//!
//! Layout: which of them (one byte), then that. What a process is called is made of several, with zeros between.

use std::path::PathBuf;

use super::input::Input;
use crate::discover::process::Facts;
use crate::discover::process::text::{Stat, Status, list, value_of};
use crate::discover::resource::{self, Host};
use crate::discover::{libraries, maps};
use crate::event::ids::Tgid;
use crate::inspect::needed::Needed;
use crate::inspect::usdt;

/// What is said of a process is no longer than that, and a few times what it says itself.
const RESOURCE_BYTES_MAX: usize = 64 << 10;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let which = input.byte().unwrap_or(0);
    let text = String::from_utf8_lossy(input.0);
    match which % 6 {
        0 => mapped(input.0),
        1 => {
            if let Some(Stat { comm, .. }) = Stat::parse(&text) {
                assert!(text.contains(&comm));
            }
            let status = Status(&text);
            let ids = (status.owner(), status.uid(), status.inner_pid());
            assert_eq!(ids, (status.owner(), status.uid(), status.inner_pid()));
            let _ = (status.has_memory(), status.code_kib());
            assert!(status.tracer().is_none_or(|tracer| tracer.0 != 0));
        }
        2 => named(input.0),
        3 => {
            let kept = libraries::fuzz(input.0);
            assert!(kept <= 2 * libraries::KEPT_MAX, "{kept}");
        }
        4 => {
            let (entries, strings) = input.0.split_at(input.0.len() / 2);
            let needed = Needed::read(entries, strings);
            assert!(needed.rpath.is_empty() || needed.runpath.is_empty());
            for name in &needed.libraries {
                assert!(!name.is_empty());
            }
        }
        _ => {
            let found: Vec<_> = usdt::of_notes(input.0).collect();
            assert!(found.len() <= input.0.len());
        }
    }
}

fn mapped(bytes: &[u8]) {
    for mapping in maps::parse(bytes) {
        let _ = mapping.name();
        let (start, end) = (mapping.addresses.start, mapping.addresses.end);
        assert_eq!(mapping.offset_of(end), None);
        if start < end {
            assert_eq!(mapping.offset_of(start), Some(mapping.offset));
        }
    }
}

/// What the process is called: its executable, arguments, environment, control groups.
fn named(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (exe, args, environment, cgroups) = (part(), part(), part(), part());
    let cgroups = String::from_utf8_lossy(cgroups).lines().map(str::to_owned).collect();
    let facts = Facts {
        tgid: Tgid(7),
        parent: Tgid(1),
        start_ticks: 1,
        comm: String::new(),
        exe: PathBuf::from(String::from_utf8_lossy(exe).into_owned()),
        deleted: false,
        exe_id: None,
        args: list(args),
        uid: Some(0),
        cgroups,
        inner_pid: 1,
        otel_service_name: value_of(environment, "OTEL_SERVICE_NAME"),
        otel_resource_attributes: value_of(environment, "OTEL_RESOURCE_ATTRIBUTES"),
        cwd: PathBuf::from("/"),
    };
    let found = resource::resource(&facts, None, &Host::default());
    assert!(!found.service_name.is_empty());
    assert!(found.attributes.encoded().len() <= RESOURCE_BYTES_MAX + GROWTH * bytes.len());
}

/// Bytes that are none of UTF-8's are written as three, and keys and values are told twice.
const GROWTH: usize = 8;
