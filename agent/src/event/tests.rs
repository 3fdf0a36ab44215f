//! Records as the kernel half lays them out.

use agent_common as wire;

use super::*;

fn io_record(io: wire::Io, payload: &[u8]) -> Vec<u8> {
    crate::fuzzing::wire::io(&io, payload)
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

#[test]
fn a_socket_tells_its_ends_its_role_and_its_age() {
    let word = |at: usize, bytes: [u8; 16]| {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let ip = |text: &str| {
        let bytes = match text.parse().expect("an address") {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(ip) => ip.octets(),
        };
        [word(0, bytes), word(8, bytes)]
    };
    let record = |kind, flags, family| {
        crate::fuzzing::wire::socket(&wire::Socket {
            header: wire::Header { kind, flags, cpu: 1, cpu_seq: 2, ts_ns: 3 },
            socket: 4,
            tgid: 5,
            netns: 6,
            local: ip("10.0.0.1"),
            remote: ip("2001:db8::1"),
            local_port: 80,
            remote_port: 4711,
            family,
            pad: 0,
            from: [7, 8],
        })
    };
    let flags = socket_flags::ACCEPTED | socket_flags::OLDER;
    let bytes = record(kind::SOCKET, flags, family::INET6);
    let (_, Event::Socket(socket)) = decode(&bytes).expect("whole") else { panic!("no socket") };
    let address = |text: &str| Address::Tcp(text.parse().expect("an address"));
    let (local, remote) = (address("10.0.0.1:80"), address("[2001:db8::1]:4711"));
    let (at, id, tgid) = (MonoNs(3), SocketId(4), Tgid(5));
    let role = Some(Role::Accepted);
    let (from, netns, is_older, op) = ([None; 2], 6, true, 0);
    assert_eq!(socket, Socket { at, id, tgid, netns, local, remote, role, is_older, from, op });
    let bytes = record(kind::SOCKET, socket_flags::FROM, family::INET);
    let (_, Event::Socket(socket)) = decode(&bytes).expect("whole") else { panic!("no socket") };
    assert_eq!(socket.from, [Some(7), Some(8)]);
    // As it was written before it had this.
    let (_, Event::Socket(socket)) = decode(&bytes[..72]).expect("whole") else { panic!("none") };
    assert_eq!(socket.from, [None; 2]);
    let bytes = record(kind::SOCKET, 0, family::UNIX);
    let (_, Event::Socket(socket)) = decode(&bytes).expect("whole") else { panic!("no socket") };
    assert_eq!((socket.from, socket.op), ([None; 2], 7));
    let bytes = record(kind::LISTEN, socket_flags::CONNECTED, family::UNIX);
    let (_, Event::Listen(socket)) = decode(&bytes).expect("whole") else { panic!("no listen") };
    assert_eq!(socket.local, Address::Unix(ip("10.0.0.1")[0]));
    assert_eq!((socket.role, socket.is_older), (Some(Role::Connected), false));
    let bytes = record(kind::SHUTDOWN, 0, family::INET);
    let Ok((_, Event::Shutdown { id, at, last })) = decode(&bytes) else { panic!("no shutdown") };
    assert_eq!((id, at, last), (SocketId(4), MonoNs(3), Last::default()));
    let both = Last { read_to: Some(5), written_to: Some(6), ..Last::default() };
    let all = socket_flags::READ_TO | socket_flags::WRITTEN_TO;
    let used = Last { has_read: true, has_written: true, ..Last::default() };
    for (flags, is_held, expected) in [
        (0, false, Last::default()),
        (socket_flags::HELD, true, Last::default()),
        (all, false, both),
        (socket_flags::READ | socket_flags::WRITTEN, false, used),
    ] {
        let bytes = record(kind::CLOSE, flags, family::INET);
        let Ok((_, event)) = decode(&bytes) else { panic!("no record") };
        let Event::Closed { id, at, held, last } = event else { panic!("no close") };
        assert_eq!((id, at, held, last), (SocketId(4), MonoNs(3), is_held, expected));
    }
    // The end of a record is what older ones have not.
    for cut in 0..bytes.len() - 8 {
        assert!(decode(&bytes[..cut]).is_err(), "{cut} bytes");
    }
}

#[test]
fn processes_fork_exec_and_exit() {
    let mut path = [0; wire::PATH_BYTES];
    path[..4].copy_from_slice(b"/a/b");
    let record = |kind| {
        let header = wire::Header { kind, flags: 0, cpu: 0, cpu_seq: 0, ts_ns: 9 };
        let (tgid, tid, parent_tgid, parent_tid) = (1, 2, 3, 4);
        crate::fuzzing::wire::process(&wire::Process {
            header,
            tgid,
            tid,
            parent_tgid,
            parent_tid,
            start_ns: 5,
            path,
        })
    };
    let bytes = record(kind::FORK);
    let Ok((_, Event::Fork { at, tgid, tid, parent_tgid, parent_tid })) = decode(&bytes) else {
        panic!("no fork")
    };
    assert_eq!((at, tgid, tid), (MonoNs(9), Tgid(1), Tid(2)));
    assert_eq!((parent_tgid, parent_tid), (Tgid(3), Tid(4)));
    let bytes = record(kind::EXEC);
    assert!(matches!(decode(&bytes), Ok((_, Event::Exec { tgid: Tgid(1), path: b"/a/b", .. }))));
    // A path without an end is one that was cut.
    assert!(matches!(decode(&bytes[..42]), Ok((_, Event::Exec { path: b"/a", .. }))));
    let bytes = record(kind::CGROUP);
    assert!(matches!(decode(&bytes), Ok((_, Event::Cgroup { tgid: Tgid(1), name: b"/a/b" }))));
    let bytes = record(kind::EXIT);
    let Ok((_, Event::Exit { tgid, lost, status, .. })) = decode(&bytes) else { panic!("no exit") };
    assert_eq!((tgid, lost, status), (Tgid(1), 4, Some(ExitStatus(3))));
    assert!(matches!(decode(&bytes[..39]), Err(DecodeError::Short { bytes: 39, .. })));
    let bytes = record(kind::THREAD_EXIT);
    let Ok((_, Event::ThreadExit { tgid, tid, status, .. })) = decode(&bytes) else {
        panic!("no end of a thread")
    };
    assert_eq!((tgid, tid, status), (Tgid(1), Tid(2), Some(ExitStatus(3))));
    let bytes = record(kind::SIGNAL);
    let Ok((_, Event::Signal { tgid, task, number, .. })) = decode(&bytes) else {
        panic!("no signal")
    };
    assert_eq!((tgid, number), (Tgid(1), 3));
    assert_eq!(task, TaskId { tgid, kind: 4, id: 5 });
}

#[test]
fn an_end_that_the_agent_writes_reads_like_one_of_the_kernel_half() {
    let record = exit(Tgid(7), MonoNs(9), 3);
    let (position, event) = decode(&record).expect("it is a record");
    assert_eq!((position.writer(), position.seq), ((15, 0), 3));
    assert!(
        matches!(event, Event::Exit { tgid: Tgid(7), at: MonoNs(9), status: None, .. }),
        "{event:?}"
    );
}
