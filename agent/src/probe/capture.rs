//! Loading, attaching, draining and detaching the capture programs.
#![expect(
    unsafe_code,
    reason = "marks the wire types as plain data for aya, and borrows the ring's descriptor"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use agent_common::{MAYBE_SLOTS, Selected, counter, select};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, FExit, Program, ProgramError};
use aya::sys::SyscallError;
use aya::{Btf as AyaBtf, Ebpf, EbpfError, EbpfLoader, Pod};

use super::offsets;
use super::wait::{Alarm, Until};
use crate::inspect::runtime::{Goroutines, Tasks};
use crate::platform::btf::{Btf, BtfError};
use crate::platform::memory;

/// The object with all programs, built by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REMORA_EBPF_OBJECT"));

/// Why capturing could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The binary was built by plain `cargo build`.
    #[error("this binary holds no eBPF object: build it with `cargo xtask build`")]
    NoObject,
    /// The kernel's types are missing or differ.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel's types could not be read a second time, for the loader.
    #[error("cannot use kernel types")]
    KernelTypes(#[source] aya::BtfError),
    /// The object was refused.
    #[error("cannot load the eBPF object")]
    Load(#[source] Box<EbpfError>),
    /// A program was refused or could not be attached.
    #[error("cannot attach `{program}`")]
    Attach {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A kernel function is missing or differs from what a program expects.
    #[error(
        "cannot hook kernel function `{name}`: expected {parameters} parameters, found {found:?}"
    )]
    Function {
        /// The function.
        name: &'static str,
        /// How many parameters it should have.
        parameters: u32,
        /// How many it has; `None` if the kernel has no such function.
        found: Option<u32>,
    },
    /// A map could not be read or written.
    #[error("cannot use map `{map}`")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// None of the capture sources works here.
    #[error("no capture source works on this kernel: see `remora doctor`")]
    NoSource,
    /// Waiting for events failed.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
}

/// How socket operations are seen, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `tp_btf` `sock_send_length` and `sock_recv_length`: only socket traffic pays.
    SocketTracepoints,
    /// `fexit` on the functions of TCP and Unix sockets: only their traffic pays. Needs BPF
    /// trampolines (x86-64; arm64 since 6.4) and Linux 5.19.
    SocketFunctions,
    /// `tp_btf` `sys_exit` alone: every syscall of the host pays a little. Needs only BTF, and
    /// does not see what io_uring does.
    SyscallExit,
}

impl Source {
    /// Every source, best first.
    pub const ALL: [Self; 3] = [Self::SocketTracepoints, Self::SocketFunctions, Self::SyscallExit];

    /// What `--capture` and the logs call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SocketTracepoints => "socket",
            Self::SocketFunctions => "fexit",
            Self::SyscallExit => "syscall",
        }
    }

    /// Programs that have a record in the making at one time.
    fn scratches(self) -> u32 {
        match self {
            Self::SocketTracepoints => 2,
            Self::SocketFunctions => 6,
            Self::SyscallExit => 1,
        }
    }

    /// Sockets remembered in a map of our own, where the kernel does not remember them for us.
    fn sockets_found(self) -> u32 {
        match self {
            Self::SocketTracepoints | Self::SocketFunctions => 1,
            Self::SyscallExit => 1 << 16,
        }
    }
}

/// What the kernel half is told before it is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// One source, or `None` for the best that works.
    pub source: Option<Source>,
    /// Size of the ring, a power of two.
    pub ring_bytes: u32,
    /// Most processes selected at one time.
    pub processes_max: u32,
    /// Bytes copied from one operation of a process that a rule may match.
    pub payload_limit: u32,
    /// Whether rules wait for programs that start.
    pub rules: bool,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct SelectedPod(Selected);

// SAFETY: integers without padding (agent-common checks the size), any bits are valid.
unsafe impl Pod for SelectedPod {}

/// What the kernel has made of an attached program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The program.
    pub program: String,
    /// Instructions that the verifier went through, over all ways; it refuses a program at a
    /// million. `None` before Linux 5.16, which does not tell.
    pub steps: Option<u32>,
    /// Size of the program as the kernel keeps it, in its own instruction set.
    pub bytes: Option<u32>,
}

/// What the kernel half has counted, summed over CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Records written.
    pub events: u64,
    reasons: [u64; counter::COUNT as usize],
}

impl Counters {
    /// One of [`counter`].
    pub fn of(&self, which: u32) -> u64 {
        self.reasons.get(which as usize).copied().unwrap_or(0)
    }
}

/// The attached programs and their maps. Dropping it detaches everything.
pub struct Capture {
    source: Source,
    ring: Ring,
    alarm: Alarm,
    selection: Selection,
    asleep: Array<MapData, u32>,
    counters: PerCpuArray<MapData, u64>,
    sequences: PerCpuArray<MapData, u64>,
    processes_max: u32,
    shared: Shared,
    // Holds the programs and with them their links.
    ebpf: Ebpf,
}

/// What the program of function probes has in common with the capture programs.
#[derive(Debug)]
pub(in crate::probe) struct Shared {
    /// Maps, by name.
    pub(in crate::probe) maps: Vec<(&'static str, OwnedFd)>,
    /// Where fields lie in the kernel's structures.
    pub(in crate::probe) offsets: Vec<u32>,
    /// Fill of the ring at which the reader is woken.
    pub(in crate::probe) wake_bytes: u64,
}

/// Maps of [`Shared`].
const SHARED: [&str; 6] =
    ["EVENTS", "SELECTED", "DESELECTIONS", "COUNTERS", "SEQUENCES", "READER_ASLEEP"];

const LIFECYCLE: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

impl Capture {
    /// Loads and attaches everything. Nothing is captured until a process is selected.
    pub fn start(options: &Options) -> Result<Self, CaptureError> {
        if OBJECT.is_empty() {
            return Err(CaptureError::NoObject);
        }
        let kernel = Kernel::read()?;
        if let Some(source) = options.source {
            return Self::start_with(options, source, &kernel);
        }
        for source in Source::ALL {
            match Self::start_with(options, source, &kernel) {
                Ok(capture) => return Ok(capture),
                Err(error @ CaptureError::Load(_)) => return Err(error),
                Err(error) => {
                    tracing::info!(source = source.as_str(), error = ?error, "capture source refused");
                }
            }
        }
        Err(CaptureError::NoSource)
    }

    fn start_with(
        options: &Options,
        source: Source,
        kernel: &Kernel,
    ) -> Result<Self, CaptureError> {
        let rules = u32::from(options.rules);
        let agent = std::process::id();
        let wake_bytes = u64::from(options.ring_bytes / 2);
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&kernel.btf))
            .override_global("OFFSETS", kernel.offsets.as_slice(), true)
            .override_global("RULES", &rules, true)
            .override_global("AGENT_TGID", &agent, true)
            .override_global("PAYLOAD_LIMIT", &options.payload_limit, true)
            .override_global("WAKE_BYTES", &wake_bytes, true)
            .map_max_entries("EVENTS", options.ring_bytes)
            .map_max_entries("SELECTED", options.processes_max)
            .map_max_entries("SCRATCH", source.scratches())
            .map_max_entries("SOCKETS_FOUND", source.sockets_found())
            .load(OBJECT)
            .map_err(|source| CaptureError::Load(Box::new(source)))?;
        for name in LIFECYCLE {
            attach_tracepoint(&mut ebpf, name, name, &kernel.btf)?;
        }
        attach(&mut ebpf, source, kernel)?;
        let maps = SHARED.into_iter().map(|name| Ok((name, another_fd(&ebpf, name)?)));
        let maps = maps.collect::<Result<_, CaptureError>>()?;
        let ring = Ring { ring: take(&mut ebpf, "EVENTS", RingBuf::try_from)? };
        Ok(Self {
            shared: Shared { maps, offsets: kernel.offsets.clone(), wake_bytes },
            source,
            alarm: Alarm::new(ring.fd()).map_err(CaptureError::Wait)?,
            ring,
            selection: Selection {
                maybe: take(&mut ebpf, "MAYBE", Array::try_from)?,
                deselections: take(&mut ebpf, "DESELECTIONS", Array::try_from)?,
                selected: take(&mut ebpf, "SELECTED", HashMap::try_from)?,
                ports: take(&mut ebpf, "PORTS", HashMap::try_from)?,
            },
            asleep: take(&mut ebpf, "READER_ASLEEP", Array::try_from)?,
            counters: take(&mut ebpf, "COUNTERS", PerCpuArray::try_from)?,
            sequences: take(&mut ebpf, "SEQUENCES", PerCpuArray::try_from)?,
            processes_max: options.processes_max,
            ebpf,
        })
    }

    /// Has signals told that end a selected process with an error.
    pub fn watch_signals(&mut self) -> Result<(), CaptureError> {
        let btf = AyaBtf::from_sys_fs().map_err(CaptureError::KernelTypes)?;
        attach_tracepoint(&mut self.ebpf, "signal_deliver", "signal_deliver", &btf)
    }

    /// What the program of function probes needs.
    pub(in crate::probe) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Which source was attached.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The attached programs, by name.
    pub fn programs(&self) -> Vec<Verified> {
        // What was not loaded has nothing to tell.
        let loaded = self.ebpf.programs().filter_map(|(name, program)| {
            let facts = program.info().ok()?;
            let (steps, bytes) = (facts.verified_instruction_count(), facts.size_translated());
            Some(Verified { program: name.to_owned(), steps, bytes })
        });
        let mut programs: Vec<_> = loaded.collect();
        programs.sort_by(|a, b| a.program.cmp(&b.program));
        programs
    }

    /// The records and the selection, to decide on processes while records are read.
    pub fn split(&mut self) -> (&mut Ring, &mut Selection) {
        (&mut self.ring, &mut self.selection)
    }

    /// Which processes are selected.
    pub fn selection(&mut self) -> &mut Selection {
        &mut self.selection
    }

    /// How many processes the kernel half remembers, wanted or not. Reads the whole map.
    pub fn selected(&self) -> usize {
        // It begins anew whenever the process that it stands at is gone: bounded for that.
        let keys = self.selection.selected.keys().take(self.processes_max as usize);
        keys.filter(Result::is_ok).count()
    }

    /// Asks the kernel half to wake [`wait`](Self::wait) at the next record.
    pub fn sleep_until_event(&mut self) -> Result<(), CaptureError> {
        let map = "READER_ASLEEP";
        let result = self.asleep.set(0, 1, 0);
        result.map_err(|source| CaptureError::Map { map, source: Box::new(source) })
    }

    /// Waits until the ring has what `until` says, one of `others` becomes readable or `timeout` is
    /// over. True if one of `others` is readable.
    pub fn wait<const N: usize>(
        &self,
        until: Until,
        others: [Option<BorrowedFd<'_>>; N],
        timeout: Option<Duration>,
    ) -> Result<bool, CaptureError> {
        self.alarm.wait(self.ring.fd(), until, others, timeout).map_err(CaptureError::Wait)
    }

    /// Forgets that the kernel half has woken the reader: called before the ring is read.
    pub fn rouse(&self) -> Result<(), CaptureError> {
        self.alarm.clear().map_err(CaptureError::Wait)
    }

    /// Records for which there was no room in the ring.
    pub fn lost(&self) -> Result<u64, CaptureError> {
        sum(&self.counters, "COUNTERS", counter::RING_FULL)
    }

    /// What the kernel half has counted.
    pub fn counters(&self) -> Result<Counters, CaptureError> {
        let mut counters = Counters::default();
        for (index, reason) in counters.reasons.iter_mut().enumerate() {
            *reason = sum(&self.counters, "COUNTERS", index as u32)?;
        }
        // A record's number counts the lost ones too.
        for slot in 0..self.sequences.len() {
            counters.events += sum(&self.sequences, "SEQUENCES", slot)?;
        }
        counters.events = counters.events.saturating_sub(counters.of(counter::RING_FULL));
        Ok(counters)
    }
}

/// A value summed over CPUs.
fn sum(
    array: &PerCpuArray<MapData, u64>,
    map: &'static str,
    index: u32,
) -> Result<u64, CaptureError> {
    let values = array.get(&index, 0);
    let values = values.map_err(|source| CaptureError::Map { map, source: Box::new(source) })?;
    Ok(values.iter().sum())
}

/// Records of the kernel half.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl Ring {
    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring holds the descriptor open for as long as it is borrowed here.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Hands every record that is ready to `sink`, at most `most`; returns how many.
    pub fn drain(&mut self, most: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < most {
            let Some(record) = self.ring.next() else { break };
            sink(&record);
            count += 1;
        }
        count
    }
}

/// Which entries of a map may be written, as bpf(2) has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// `BPF_ANY`
    Any = 0,
    /// `BPF_EXIST`: one that is there.
    Present = 2,
}

/// Which processes the kernel half captures.
pub struct Selection {
    /// Which slots may be in `selected`.
    maybe: Array<MapData, u8>,
    /// Changed whenever something may have been taken away from `selected`.
    deselections: Array<MapData, u64>,
    selected: HashMap<MapData, u32, SelectedPod>,
    ports: HashMap<MapData, u16, u32>,
}

impl Selection {
    /// Captures `tgid` from here on; with `follow` its future children too.
    pub fn select(
        &mut self,
        tgid: u32,
        follow: bool,
        payload_limit: u32,
    ) -> Result<(), CaptureError> {
        let bits = select::TRACED | if follow { select::FOLLOW } else { 0 };
        self.put(tgid, Selected { bits, payload_limit, ..Selected::default() }, Entry::Any)
    }

    /// As [`select`](Self::select), for a process that the kernel half has told of and so has put
    /// into the map itself. If it has exited meanwhile, it stays forgotten: nobody would take it out
    /// again until its id comes round.
    pub fn confirm(
        &mut self,
        tgid: u32,
        follow: bool,
        payload_limit: u32,
    ) -> Result<(), CaptureError> {
        let known = self.selected.get(&tgid, 0).map_or(0, |selected| selected.0.bits);
        let bits =
            select::TRACED | if follow { select::FOLLOW } else { 0 } | (known & select::FUNCTIONS);
        self.put(tgid, Selected { bits, payload_limit, ..Selected::default() }, Entry::Present)
    }

    /// Remembers that `tgid`, of which the kernel half has told, is not wanted, until it execs or
    /// exits.
    pub fn ignore(&mut self, tgid: u32) -> Result<(), CaptureError> {
        let selected = Selected { bits: select::IGNORED, ..Selected::default() };
        self.put(tgid, selected, Entry::Present)
    }

    /// Says what the kernel half finds in `tgid` beside threads, until it execs.
    pub fn tasks(&mut self, tgid: u32, tasks: Tasks) -> Result<(), CaptureError> {
        // Gone already: nothing to find.
        let Ok(SelectedPod(selected)) = self.selected.get(&tgid, 0) else { return Ok(()) };
        let selected = match tasks {
            Tasks::Goroutines(Goroutines { goid_offset, g_tls_offset }) => {
                Selected { goid_offset, g_tls_offset, ..selected }
            }
            Tasks::NginxRequests => Selected { bits: selected.bits | select::NGINX, ..selected },
        };
        self.put(tgid, selected, Entry::Present)
    }

    /// As [`select_functions`](Self::select_functions), of the program that `tgid` is about to become.
    pub fn select_next_functions(&mut self, tgid: u32) -> Result<(), CaptureError> {
        let known = self.selected.get(&tgid, 0).map_or(Selected::default(), |selected| selected.0);
        let bits = known.bits | select::FUNCTIONS_NEXT;
        self.put(tgid, Selected { bits, ..known }, Entry::Any)
    }

    /// Has the hits of function probes told of `tgid`, beside what else is told of it, until it execs
    /// or exits. Selecting it again in another way undoes this.
    pub fn select_functions(&mut self, tgid: u32) -> Result<(), CaptureError> {
        let known = self.selected.get(&tgid, 0).map_or(Selected::default(), |selected| selected.0);
        let bits = known.bits | select::FUNCTIONS;
        self.put(tgid, Selected { bits, ..known }, Entry::Any)
    }

    /// Forgets `tgid`.
    pub fn deselect(&mut self, tgid: u32) {
        // Gone already is as good: the kernel half removes exited processes itself.
        let _ = self.selected.remove(&tgid);
        // It fails for nothing but an array without this word.
        let _ = self.deselected();
    }

    /// Events of `tgid` that the kernel half lost; `None` if it is not selected.
    pub fn lost(&self, tgid: u32) -> Option<u64> {
        self.selected.get(&tgid, 0).ok().map(|selected| selected.0.lost)
    }

    /// Whether `tgid` is in the map, with these bits.
    pub fn bits(&self, tgid: u32) -> Option<u32> {
        self.selected.get(&tgid, 0).ok().map(|selected| selected.0.bits)
    }

    /// Selects whatever process begins to listen on `port`.
    pub fn watch_port(&mut self, port: u16) -> Result<(), CaptureError> {
        let map = "PORTS";
        let result = self.ports.insert(port, 1, 0);
        result.map_err(|source| CaptureError::Map { map, source: Box::new(source) })
    }

    fn put(&mut self, tgid: u32, selected: Selected, entry: Entry) -> Result<(), CaptureError> {
        let map = "MAYBE";
        let result = self.maybe.set(tgid & (MAYBE_SLOTS - 1), 1, 0);
        result.map_err(|source| CaptureError::Map { map, source: Box::new(source) })?;
        let map = "SELECTED";
        let result = match self.selected.insert(tgid, SelectedPod(selected), entry as u64) {
            Err(MapError::SyscallError(SyscallError { ref io_error, .. }))
                if entry == Entry::Present && io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            result => result,
        };
        result.map_err(|source| CaptureError::Map { map, source: Box::new(source) })?;
        self.deselected()
    }

    /// Has the kernel half look again at whom it has found selected, after that has changed. If it adds
    /// one meanwhile, that is lost, and what it then finds is as new.
    fn deselected(&mut self) -> Result<(), CaptureError> {
        let map = "DESELECTIONS";
        let result = self
            .deselections
            .get(&0, 0)
            .and_then(|count| self.deselections.set(0, count.wrapping_add(1), 0));
        result.map_err(|source| CaptureError::Map { map, source: Box::new(source) })
    }
}

fn another_fd(ebpf: &Ebpf, map: &'static str) -> Result<OwnedFd, CaptureError> {
    let found = ebpf.map(map).ok_or(CaptureError::NoObject)?;
    let fd = match found {
        Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => {
            data.fd().as_fd().try_clone_to_owned()
        }
        _ => return Err(CaptureError::NoObject),
    };
    fd.map_err(|source| CaptureError::Map { map, source: Box::new(MapError::IoError(source)) })
}

fn take<T>(
    ebpf: &mut Ebpf,
    map: &'static str,
    convert: impl FnOnce(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, CaptureError> {
    let taken = ebpf.take_map(map).ok_or(CaptureError::NoObject)?;
    convert(taken).map_err(|source| CaptureError::Map { map, source: Box::new(source) })
}

/// What the running kernel looks like.
struct Kernel {
    offsets: Vec<u32>,
    /// How many parameters the functions have that may be hooked.
    parameters: Vec<(&'static str, Option<u32>)>,
    btf: AyaBtf,
}

impl Kernel {
    /// Reads the kernel's types twice, for ourselves and for the loader, but one after the other: each
    /// takes many times the memory that the agent needs from then on.
    fn read() -> Result<Self, CaptureError> {
        let types = Btf::from_sys_fs()?;
        let offsets = offsets::resolve(&types)?;
        let functions = SOCKET_FUNCTIONS.iter().chain(&PAGE_FUNCTIONS);
        let parameters = functions.map(|(name, _)| (*name, types.parameters(name))).collect();
        drop(types);
        memory::give_back();
        let btf = AyaBtf::from_sys_fs().map_err(CaptureError::KernelTypes)?;
        Ok(Self { offsets, parameters, btf })
    }

    fn parameters(&self, name: &str) -> Option<u32> {
        self.parameters.iter().find(|(known, _)| *known == name).and_then(|(_, count)| *count)
    }
}

fn attach(ebpf: &mut Ebpf, source: Source, kernel: &Kernel) -> Result<(), CaptureError> {
    let btf = &kernel.btf;
    let state = "inet_sock_set_state";
    match source {
        Source::SocketTracepoints => {
            attach_tracepoint(ebpf, state, state, btf)?;
            attach_tracepoint(ebpf, "sock_send_length", "sock_send_length", btf)?;
            attach_tracepoint(ebpf, "sock_recv_length", "sock_recv_length", btf)
        }
        Source::SocketFunctions => {
            attach_tracepoint(ebpf, state, state, btf)?;
            for (name, parameters) in SOCKET_FUNCTIONS {
                let found = kernel.parameters(name);
                if found != Some(parameters) {
                    return Err(CaptureError::Function { name, parameters, found });
                }
                attach_fexit(ebpf, name, btf)?;
            }
            for (name, parameters) in PAGE_FUNCTIONS {
                // Gone since 6.5, when they became sends like any other.
                if kernel.parameters(name) == Some(parameters) {
                    attach_fexit(ebpf, name, btf)?;
                }
            }
            Ok(())
        }
        Source::SyscallExit => {
            attach_tracepoint(ebpf, "inet_sock_set_state_found", state, btf)?;
            attach_tracepoint(ebpf, "sys_exit", "sys_exit", btf)
        }
    }
}

/// Functions that [`Source::SocketFunctions`] hooks, and how many parameters each must have for
/// the program to find its arguments.
const SOCKET_FUNCTIONS: [(&str, u32); 4] = [
    ("tcp_sendmsg", 3),
    ("tcp_recvmsg", 5),
    ("unix_stream_sendmsg", 3),
    ("unix_stream_recvmsg", 4),
];

/// As above, where the kernel has them.
const PAGE_FUNCTIONS: [(&str, u32); 2] = [("tcp_sendpage", 5), ("unix_stream_sendpage", 5)];

fn attach_tracepoint(
    ebpf: &mut Ebpf,
    name: &'static str,
    tracepoint: &str,
    btf: &AyaBtf,
) -> Result<(), CaptureError> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program
        .load(tracepoint, btf)
        .and_then(|()| program.attach())
        .map(drop)
        .map_err(|source| CaptureError::Attach { program: name, source: Box::new(source) })
}

fn attach_fexit(ebpf: &mut Ebpf, name: &'static str, btf: &AyaBtf) -> Result<(), CaptureError> {
    let program: &mut FExit = program(ebpf, name)?;
    program
        .load(name, btf)
        .and_then(|()| program.attach())
        .map(drop)
        .map_err(|source| CaptureError::Attach { program: name, source: Box::new(source) })
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, CaptureError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(CaptureError::NoObject)?;
    program
        .try_into()
        .map_err(|source| CaptureError::Attach { program: name, source: Box::new(source) })
}
