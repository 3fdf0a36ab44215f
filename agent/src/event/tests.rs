//! Records as the kernel half lays them out.

use agent_common as wire;

use super::*;

fn io_record(io: wire::Io, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend([io.header.kind, io.header.flags]);
    bytes.extend(io.header.cpu.to_ne_bytes());
    bytes.extend(io.header.cpu_seq.to_ne_bytes());
    bytes.extend(io.header.ts_ns.to_ne_bytes());
    bytes.extend(io.socket.to_ne_bytes());
    bytes.extend(io.tgid.to_ne_bytes());
    bytes.extend(io.tid.to_ne_bytes());
    bytes.extend(io.task.to_ne_bytes());
    for word in [io.len, io.op, io.tcp_seq, io.segment_age_ns] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(io.copied.to_ne_bytes());
    bytes.extend([io.task_kind, 0]);
    bytes.extend(io.syscall.to_ne_bytes());
    assert_eq!(bytes.len(), size_of::<wire::Io>());
    bytes.extend(payload);
    bytes
}

fn io(flags: u8, len: u32, copied: u16) -> wire::Io {
    let header = wire::Header { kind: kind::IO, flags, cpu: 3, cpu_seq: 9, ts_ns: 1_000 };
    let (tgid, tid) = (7, 8);
    wire::Io { header, socket: 5, tgid, tid, len, op: 4, tcp_seq: 2, copied, ..Default::default() }
}

#[test]
fn an_operation_keeps_its_payload_and_its_place_in_the_stream() {
    let flags = io_flags::OUTBOUND | io_flags::TCP_SEQ | io_flags::SUFFIX;
    let record = io_record(io(flags, 100, 12), b"GET /end-end");
    let (position, Event::Io(io)) = decode(&record).expect("whole") else { panic!("not io") };
    assert_eq!(position, Position { cpu: 3, seq: 9 });
    assert_eq!((io.tgid, io.tid, io.socket), (Tgid(7), Tid(8), SocketId(5)));
    assert_eq!(io.direction, Direction::Outbound);
    assert_eq!(io.tcp_seq, Some(2u32.wrapping_sub(100)), "first byte, across the wrap");
    let Outcome::Moved(segment) = io.outcome else { panic!("moved") };
    assert_eq!(
        (segment.prefix, segment.suffix, segment.len),
        (&b"GET "[..], &b"/end-end"[..], 100)
    );
}

#[test]
fn the_end_of_a_stream_and_a_failure_move_nothing() {
    let record = io_record(io(io_flags::END, 0, 0), b"");
    let (_, Event::Io(end)) = decode(&record).expect("whole") else { panic!("not io") };
    assert!(matches!(end.outcome, Outcome::End));
    let record = io_record(io(io_flags::ERROR, 104, 0), b"");
    let (_, Event::Io(failed)) = decode(&record).expect("whole") else { panic!("not io") };
    assert!(matches!(failed.outcome, Outcome::Failed(104)));
}

#[test]
fn a_record_that_is_cut_or_unknown_is_an_error() {
    let record = io_record(io(io_flags::SUFFIX, 100, 12), b"GET /end-end");
    for bytes in 0..record.len() {
        let cut = record.get(..bytes).expect("prefix");
        assert!(decode(cut).is_err(), "{bytes} bytes of {}", record.len());
    }
    assert_eq!(decode(&[99; 32]).err(), Some(DecodeError::UnknownKind(99)));
    // A suffix longer than what was copied.
    let record = io_record(io(io_flags::SUFFIX, 100, 4), b"GET ");
    assert!(decode(&record).is_err());
}
