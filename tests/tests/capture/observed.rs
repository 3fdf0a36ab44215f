//! What the kernel half told about one process, and whether that is what the process did.

use std::collections::HashMap;
use std::time::Instant;

use remora::event::ids::SocketId;
use remora::event::{self, Event, Outcome, Socket};
use remora::probe::Capture;
use remora::protocol::Direction;

/// What an operation did, as either side tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// Moved bytes; without a payload, several may be told as one.
    Moved {
        len: u64,
        payload: Option<Payload>,
    },
    End,
    Failed(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Operation {
    tgid: u32,
    direction: Direction,
    op: u32,
    tcp_seq: Option<u32>,
    did: Did,
}

/// Everything that was told about one process.
pub(crate) struct Observed {
    tgid: u32,
    sockets: Vec<Socket>,
    operations: HashMap<SocketId, Vec<Operation>>,
    closed: Vec<SocketId>,
    shutdown: Vec<SocketId>,
    programs: Vec<String>,
    /// Whether its children are captured too.
    pub(crate) follows: bool,
}

impl Observed {
    pub(crate) fn new(tgid: u32) -> Self {
        Self {
            tgid,
            sockets: Vec::new(),
            operations: HashMap::new(),
            closed: Vec::new(),
            shutdown: Vec::new(),
            programs: Vec::new(),
            follows: false,
        }
    }

    /// Takes in records until the process has ended and its sockets are closed.
    pub(crate) fn drain_until_exit(&mut self, capture: &mut Capture) {
        let deadline = Instant::now() + remora_tests::DEADLINE;
        let mut sequences: HashMap<u16, u32> = HashMap::new();
        let mut exited = false;
        while !exited {
            assert!(Instant::now() < deadline, "no exit: {:?}", capture.counters());
            let drained = capture.split().0.drain(usize::MAX, |record| {
                let (position, event) = event::decode(record).expect("a record");
                if let Some(last) = sequences.insert(position.cpu, position.seq) {
                    assert_eq!(position.seq, last.wrapping_add(1), "writer {:x}", position.cpu);
                }
                exited |= self.take(&event);
            });
            if drained == 0 {
                std::thread::yield_now();
            }
        }
    }

    /// True if the process ended.
    fn take(&mut self, event: &Event<'_>) -> bool {
        match *event {
            Event::Socket(socket) => self.sockets.push(socket),
            Event::Closed { id, .. } => self.closed.push(id),
            Event::Shutdown { id, .. } => self.shutdown.push(id),
            Event::Io(io) => {
                assert_eq!(io.task.kind, agent_common::task_kind::THREAD);
                assert!(self.follows || io.tgid.0 == self.tgid);
                let did = match io.outcome {
                    Outcome::End => Did::End,
                    Outcome::Failed(errno) => Did::Failed(errno),
                    Outcome::Moved(segment) => {
                        let payload = Payload {
                            prefix: segment.prefix.to_vec(),
                            suffix: segment.suffix.to_vec(),
                        };
                        let payload = (!segment.prefix.is_empty()).then_some(payload);
                        Did::Moved { len: segment.len, payload }
                    }
                };
                let (direction, op, tcp_seq) = (io.direction, io.op, io.tcp_seq);
                let operation = Operation { tgid: io.tgid.0, direction, op, tcp_seq, did };
                self.operations.entry(io.socket).or_default().push(operation);
            }
            Event::Exit { tgid, lost, .. } if tgid.0 == self.tgid => {
                assert_eq!(lost, 0);
                return true;
            }
            Event::Exec { path, .. } => {
                let path = String::from_utf8_lossy(path);
                self.programs.push(path.rsplit('/').next().unwrap_or_default().to_owned());
            }
            Event::Listen(_)
            | Event::Cgroup { .. }
            | Event::Hit(_)
            | Event::Fork { .. }
            | Event::Exit { .. }
            | Event::ThreadExit { .. }
            | Event::Signal { .. } => {}
        }
        false
    }

    /// Sockets in the order in which they were first used.
    pub(crate) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Names of the programs that were started.
    pub(crate) fn programs(&self) -> &[String] {
        &self.programs
    }

    /// Who moved which bytes over a socket.
    pub(crate) fn payloads(&self, id: SocketId) -> Vec<(u32, Vec<u8>)> {
        let operations = self.operations.get(&id).map(Vec::as_slice).unwrap_or_default();
        let payload = |operation: &Operation| match &operation.did {
            Did::Moved { payload: Some(payload), .. } => {
                Some((operation.tgid, payload.prefix.clone()))
            }
            _ => None,
        };
        operations.iter().filter_map(payload).collect()
    }

    pub(crate) fn is_closed(&self, id: SocketId) -> bool {
        self.closed.contains(&id)
    }

    /// Compares with what the program says it did on these sockets.
    pub(crate) fn check_operations(&self, names: &[&str], told: &[String]) {
        for (socket, name) in self.sockets.iter().zip(names) {
            let expected = merged(told.iter().filter_map(|line| told_operation(line, name)));
            let seen = self.operations.get(&socket.id).map(Vec::as_slice).unwrap_or_default();
            let seen = merged(seen.iter().map(|seen| (seen.direction, seen.did.clone())));
            for (index, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
                assert!(same(seen, expected), "{name} {index}\nseen {seen:?}\ntold {expected:?}");
            }
            assert_eq!(seen.len(), expected.len(), "{name}");
        }
    }

    /// As [`check_operations`](Self::check_operations), where operations without a payload are not
    /// seen at all.
    pub(crate) fn check_payloads(&self, told: &[String]) {
        let has_payload =
            |(_, did): &(Direction, Did)| !matches!(did, Did::Moved { payload: None, .. });
        let mut told: Vec<_> = ["a", "b", "c", "d"]
            .into_iter()
            .flat_map(|name| told.iter().filter_map(move |line| told_operation(line, name)))
            .filter(has_payload)
            .collect();
        for operation in self.operations.values().flatten() {
            let seen = (operation.direction, operation.did.clone());
            let index = told.iter().position(|told| same(&seen, told));
            told.remove(index.unwrap_or_else(|| panic!("never happened: {seen:?}")));
        }
        assert_eq!(told, []);
    }

    /// Operations are numbered without a gap, and each byte of a TCP stream has the same number at
    /// both ends.
    pub(crate) fn check_sequences(&self) {
        let mut firsts = HashMap::new();
        for (index, socket) in self.sockets.iter().enumerate() {
            let Some(operations) = self.operations.get(&socket.id) else { continue };
            let mut next = HashMap::new();
            for (number, operation) in operations.iter().enumerate() {
                assert_eq!(operation.op as usize, number);
                let Did::Moved { len, .. } = operation.did else { continue };
                let is_tcp = socket.local.ip().is_some();
                assert_eq!(operation.tcp_seq.is_some(), is_tcp);
                let Some(seq) = operation.tcp_seq else { continue };
                let outbound = operation.direction == Direction::Outbound;
                firsts.entry((index, outbound)).or_insert(seq);
                if let Some(next) = next.insert(outbound, seq.wrapping_add(len as u32)) {
                    assert_eq!(seq, next, "operation {number} of {index}");
                }
            }
        }
        assert_eq!(firsts.get(&(0, true)), firsts.get(&(1, false)));
        assert_eq!(firsts.get(&(0, false)), firsts.get(&(1, true)));
    }
}

/// `op NAME in|out LEN PREFIX [SUFFIX]` or `failed NAME ERRNO`, if it is about `name`.
fn told_operation(line: &str, name: &str) -> Option<(Direction, Did)> {
    let mut words = line.split(' ');
    let what = words.next()?;
    if words.next()? != name {
        return None;
    }
    if what == "failed" {
        return Some((Direction::Inbound, Did::Failed(words.next()?.parse().ok()?)));
    }
    let direction = if words.next()? == "out" { Direction::Outbound } else { Direction::Inbound };
    let len: u64 = words.next()?.parse().ok()?;
    let prefix = words.next()?;
    if len == 0 {
        return Some((direction, Did::End));
    }
    let payload = (prefix != "-").then(|| Payload {
        prefix: bytes(prefix),
        suffix: bytes(words.next().unwrap_or_default()),
    });
    Some((direction, Did::Moved { len, payload }))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("hex") as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Neighbours without a payload become one: a sendfile is seen in parts or as a whole.
fn merged(operations: impl Iterator<Item = (Direction, Did)>) -> Vec<(Direction, Did)> {
    let mut merged: Vec<(Direction, Did)> = Vec::new();
    for (direction, did) in operations {
        if let (
            Some((last_direction, Did::Moved { len, payload: None })),
            Did::Moved { len: more, payload: None },
        ) = (merged.last_mut(), &did)
            && *last_direction == direction
        {
            *len += more;
            continue;
        }
        merged.push((direction, did));
    }
    merged
}

/// The suffix may be missing (an operation of very many vectors), but not differ.
fn same(seen: &(Direction, Did), told: &(Direction, Did)) -> bool {
    let (
        Did::Moved { len, payload: Some(seen_payload) },
        Did::Moved { len: told_len, payload: Some(told_payload) },
    ) = (&seen.1, &told.1)
    else {
        return seen == told;
    };
    let suffix = &seen_payload.suffix;
    seen.0 == told.0
        && len == told_len
        && seen_payload.prefix == told_payload.prefix
        && (suffix.is_empty() || *suffix == told_payload.suffix)
}
