//! Raw records, decoded and followed to spans.
//!
//! Layout: records, each behind its length (two bytes). A length of 0 hands out what has ended; one
//! above what is left is an operation made of a few bytes, so that a fuzzer need not find out how a
//! record is laid out.

use std::sync::Arc;

use agent_common::{Header, Io, Socket, family, io_flags, kind, socket_flags};

use super::input::Input;
use super::{honest, wire};
use crate::event::ids::Tgid;
use crate::pipeline::{Pipeline, Step};
use crate::platform::clock::MonoNs;
use crate::span::attributes::Attributes;
use crate::span::model::{Resource, Span};
use crate::span::tracker::Settings;

/// Processes that are announced.
const PROCESSES: u32 = 4;

pub(super) fn run(bytes: &[u8]) {
    let mut pipeline = Pipeline::new(Settings::default(), 1);
    let mut spans = Vec::new();
    for tgid in 1..=PROCESSES {
        let (attributes, service_name) = (Attributes::default(), tgid.to_string());
        let resource = Arc::new(Resource { attributes, service_name });
        let multiplexes_tasks = tgid == PROCESSES;
        let step = Step::Process { tgid: Tgid(tgid), resource, multiplexes_tasks };
        pipeline.step(&step, &mut spans);
    }
    let mut input = Input(bytes);
    let mut kernel = Kernel::default();
    while let Some(len) = input.short() {
        match usize::from(len) {
            0 => pipeline.step(&Step::Collect(MonoNs(kernel.now)), &mut spans),
            len if len <= input.0.len() => {
                pipeline.step(&Step::Record(input.up_to(len)), &mut spans);
            }
            _ => {
                for record in kernel.operation(&mut input) {
                    pipeline.step(&Step::Record(&record), &mut spans);
                }
            }
        }
    }
    end(pipeline, spans);
}

/// Ends a pipeline and looks at what it has made.
pub(super) fn end(mut pipeline: Pipeline, mut spans: Vec<Span>) {
    pipeline.step(&Step::Finish(MonoNs::MAX), &mut spans);
    let (_, exchanges) = pipeline.sizes();
    assert_eq!(exchanges, 0, "exchanges are left");
    assert!(!pipeline.is_pending(), "something waits though nothing will come");
    honest::check(&spans, false);
}

/// Makes records that belong together of very few bytes.
#[derive(Default)]
struct Kernel {
    now: u64,
    seq: u32,
    sockets: [Option<End>; 8],
}

/// One end of a connection; its other end has the number with the lowest bit turned.
#[derive(Clone, Copy, Default)]
struct End {
    op: u32,
    seq: [u32; 2],
}

impl Kernel {
    /// What happens; on which socket; by whom; how many bytes.
    fn operation(&mut self, input: &mut Input<'_>) -> Vec<Vec<u8>> {
        let (what, number) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0) & 7);
        let who = input.byte().unwrap_or(0);
        let (tgid, tid) = (u32::from(who & 3) + 1, u32::from(who >> 2));
        let len = input.byte().unwrap_or(0);
        let payload = input.up_to(len.into());
        let mut records = Vec::new();
        let Some(slot) = self.sockets.get(usize::from(number)).copied() else { return records };
        let mut end = slot.unwrap_or_default();
        self.now += 1000;
        let mut header = |kind, flags| {
            self.seq += 1;
            Header { kind, flags, cpu: 0, cpu_seq: self.seq, ts_ns: self.now }
        };
        let unix = number >= 6;
        if slot.is_none() {
            records.push(wire::socket(&socket(header(kind::SOCKET, 0), number, tgid)));
        }
        let outbound = what & 1;
        let (mut flags, mut len) = (outbound, payload.len() as u32);
        // How far its streams had come, lost bytes included.
        let used = socket_flags::READ | socket_flags::WRITTEN;
        let last = match outbound {
            0 => used,
            _ => used | socket_flags::READ_TO | socket_flags::WRITTEN_TO,
        };
        let over =
            |header| Socket { tgid: end.seq[0], netns: end.seq[1], ..socket(header, number, tgid) };
        match what >> 1 {
            1 => {
                records.push(wire::socket(&over(header(kind::SHUTDOWN, last))));
                len = 0;
            }
            2 => {
                records.push(wire::socket(&over(header(kind::CLOSE, last))));
                len = 0;
            }
            3 => {
                records.push(wire::socket(&over(header(kind::CLOSE, socket_flags::HELD))));
                len = 0;
            }
            4 => (flags, len) = (flags | io_flags::END, 0),
            5 => (flags, len) = (flags | io_flags::ERROR, 104),
            // Lost: the position moves on.
            6 => {}
            what => flags |= if what & 8 == 0 { 0 } else { io_flags::NONBLOCKING },
        }
        let moved = if flags & (io_flags::END | io_flags::ERROR) == 0 { len } else { 0 };
        if let Some(seq) = end.seq.get_mut(usize::from(outbound)) {
            *seq = seq.wrapping_add(moved);
            if !matches!(what >> 1, 1..=3 | 6) {
                flags |= if unix { 0 } else { io_flags::TCP_SEQ };
                let io = Io {
                    header: header(kind::IO, flags),
                    socket: u64::from(number) + 1,
                    tgid,
                    tid,
                    len,
                    op: end.op,
                    tcp_seq: *seq,
                    copied: moved as u16,
                    ..Io::default()
                };
                records.push(wire::io(&io, if moved > 0 { payload } else { &[] }));
            }
        }
        end.op += 1;
        if let Some(slot) = self.sockets.get_mut(usize::from(number)) {
            *slot = Some(end);
        }
        records
    }
}

fn socket(header: Header, number: u8, tgid: u32) -> Socket {
    let pair = u64::from(number >> 1) + 1;
    let (mine, other) = (u64::from(number & 1), u64::from(number & 1 ^ 1));
    let (family, local, remote) = if number >= 6 {
        (family::UNIX, [2 + mine, 0], [2 + other, 0])
    } else {
        let address = |end: u64| [0, (10 + end) << 56 | 0xffff_0000];
        (family::INET, address(mine), address(other))
    };
    let role = if mine == 0 { socket_flags::ACCEPTED } else { socket_flags::CONNECTED };
    let header = Header { flags: header.flags | role, ..header };
    Socket {
        header,
        socket: u64::from(number) + 1,
        tgid,
        netns: 1,
        local,
        remote,
        local_port: (pair * 10 + mine) as u16,
        remote_port: (pair * 10 + other) as u16,
        family,
        pad: 0,
        from: [0; 2],
    }
}
