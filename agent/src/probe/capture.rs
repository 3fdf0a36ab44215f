//! Loading, attaching, draining and detaching the capture programs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use agent_common::counter;

use super::bpf::program::{self, Kind, Verified};
use super::error::{AttachError, CaptureError};
use super::kernel::Kernel;
use super::living::Living;
use super::map::{Entry, Map, PerCpuArray};
use super::object::{Aligned, Object, ObjectError, Wishes, bytes_of_words};
use super::ring::Ring;
use super::selection::Selection;
use super::source::{Attachment, LIFECYCLE, SIGNALS, SIGNALS_WITH_STACKS, Source};
use super::wait::{Alarm, Until};
use crate::event::ids::SocketId;
use crate::platform::cpus;

/// The object with all programs, built by `cargo xtask build`.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("REMORA_EBPF_OBJECT")));

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
    attached: Vec<Attached>,
    ring: Ring,
    alarm: Alarm,
    selection: Selection,
    asleep: Map<u32, u32>,
    counters: PerCpuArray,
    sequences: PerCpuArray,
    processes_max: u32,
    shared: Arc<Shared>,
    kernel: Kernel,
    // For the programs that are loaded later.
    object: Object,
    /// Loaded when it is first asked; `None` if that is not possible.
    living: Option<Option<Living>>,
}

/// A program at its place, as long as this lives.
struct Attached {
    name: &'static str,
    // Dropped first.
    _link: OwnedFd,
    program: OwnedFd,
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

const EVENTS: &str = "EVENTS";
const COUNTERS: &str = "COUNTERS";
const SEQUENCES: &str = "SEQUENCES";
const READER_ASLEEP: &str = "READER_ASLEEP";

/// Maps of [`Shared`].
const SHARED: [&str; 6] = [EVENTS, "SELECTED", "CHANGES", COUNTERS, SEQUENCES, READER_ASLEEP];

impl Capture {
    /// Loads and attaches everything. Nothing is captured until a process is selected.
    pub fn start(options: &Options) -> Result<Self, CaptureError> {
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
        let wake_bytes = u64::from(options.ring_bytes / 2);
        let mut object = load(options, source, kernel, wake_bytes).map_err(CaptureError::Load)?;
        let attachments: Vec<&Attachment> = LIFECYCLE.iter().chain(source.attachments()).collect();
        let attached = attach(&object, &attachments, kernel)?;
        let maps = &mut object.maps;
        let shared = SHARED.into_iter().map(|name| {
            let fd = maps.fd(name).map_err(CaptureError::Load)?.try_clone_to_owned();
            Ok((name, fd.map_err(|source| CaptureError::Map { map: name, source })?))
        });
        let shared = shared.collect::<Result<_, CaptureError>>()?;
        let cpus =
            cpus::possible().map_err(|source| CaptureError::Map { map: COUNTERS, source })?;
        let (ring, ring_bytes) = maps.take(EVENTS).map_err(CaptureError::Load)?;
        let ring = Ring::new(ring, ring_bytes)
            .map_err(|source| CaptureError::Map { map: EVENTS, source })?;
        Ok(Self {
            source,
            attached,
            alarm: Alarm::new(ring.as_fd()).map_err(CaptureError::Wait)?,
            ring,
            selection: Selection::new(maps).map_err(CaptureError::Load)?,
            asleep: maps.take_typed(READER_ASLEEP).map_err(CaptureError::Load)?,
            counters: maps.take_per_cpu(COUNTERS, cpus).map_err(CaptureError::Load)?,
            sequences: maps.take_per_cpu(SEQUENCES, cpus).map_err(CaptureError::Load)?,
            processes_max: options.processes_max,
            shared: Arc::new(Shared { maps: shared, offsets: kernel.offsets.clone(), wake_bytes }),
            kernel: kernel.clone(),
            object,
            living: None,
        })
    }

    /// Those of these Unix sockets that no process has any more, as far as that can be known.
    pub fn gone(&mut self, sockets: Vec<SocketId>) -> Vec<SocketId> {
        if sockets.is_empty() {
            return sockets;
        }
        let load = || {
            let loaded = Living::new(&self.object, &self.kernel, self.source);
            loaded.inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::info!(error, "the close of Unix sockets is not seen");
            })
        };
        let living = self.living.get_or_insert_with(|| load().ok()).as_ref();
        let gone = living.map(|living| living.gone(sockets)).transpose();
        let gone = gone.inspect_err(|error| {
            tracing::warn!(%error, "cannot ask which Unix sockets are there");
        });
        gone.ok().flatten().unwrap_or_default()
    }

    /// Has signals told that end a selected process with an error.
    pub fn watch_signals(&mut self) -> Result<(), CaptureError> {
        let attached = attach(&self.object, &[&SIGNALS_WITH_STACKS], &self.kernel);
        let attached = attached.or_else(|error| {
            // Before Linux 5.15 it cannot.
            tracing::info!(%error, "stacks are not told of signals that end a process");
            attach(&self.object, &[&SIGNALS], &self.kernel)
        });
        self.attached.extend(attached?);
        Ok(())
    }

    /// What the program of function probes needs.
    pub(in crate::probe) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Which source was attached.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The attached programs, by name.
    pub fn programs(&self) -> Vec<Verified> {
        let attached = self.attached.iter();
        let mut programs: Vec<_> =
            attached.map(|one| Verified::of(one.name, one.program.as_fd())).collect();
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
        self.selection.count(self.processes_max as usize)
    }

    /// Asks the kernel half to wake [`wait`](Self::wait) at the next record.
    pub fn sleep_until_event(&mut self) -> Result<(), CaptureError> {
        let result = self.asleep.set(0, 1, Entry::Any);
        result.map_err(|source| CaptureError::Map { map: READER_ASLEEP, source })
    }

    /// Waits until the ring has what `until` says, one of `others` becomes readable or `timeout` is
    /// over. True if one of `others` is readable.
    pub fn wait<const N: usize>(
        &self,
        until: Until,
        others: [Option<BorrowedFd<'_>>; N],
        timeout: Option<Duration>,
    ) -> Result<bool, CaptureError> {
        self.alarm.wait(self.ring.as_fd(), until, others, timeout).map_err(CaptureError::Wait)
    }

    /// Forgets that the kernel half has woken the reader: called before the ring is read.
    pub fn rouse(&self) -> Result<(), CaptureError> {
        self.alarm.clear().map_err(CaptureError::Wait)
    }

    /// Records for which there was no room in the ring.
    pub fn lost(&self) -> Result<u64, CaptureError> {
        sum(&self.counters, COUNTERS, counter::RING_FULL)
    }

    /// What the kernel half has counted.
    pub fn counters(&self) -> Result<Counters, CaptureError> {
        let mut counters = Counters::default();
        for (index, reason) in counters.reasons.iter_mut().enumerate() {
            *reason = sum(&self.counters, COUNTERS, index as u32)?;
        }
        // A record's number counts the lost ones too.
        for slot in 0..self.sequences.len() {
            counters.events += sum(&self.sequences, SEQUENCES, slot)?;
        }
        counters.events = counters.events.saturating_sub(counters.of(counter::RING_FULL));
        Ok(counters)
    }
}

/// A word summed over CPUs.
fn sum(array: &PerCpuArray, map: &'static str, index: u32) -> Result<u64, CaptureError> {
    array.sum(index).map_err(|source| CaptureError::Map { map, source })
}

fn load(
    options: &Options,
    source: Source,
    kernel: &Kernel,
    wake_bytes: u64,
) -> Result<Object, ObjectError> {
    let offsets = bytes_of_words(&kernel.offsets);
    let globals = [
        ("OFFSETS", &offsets[..]),
        ("RULES", &u32::from(options.rules).to_ne_bytes()),
        ("AGENT_TGID", &std::process::id().to_ne_bytes()),
        ("PAYLOAD_LIMIT", &options.payload_limit.to_ne_bytes()),
        ("WAKE_BYTES", &wake_bytes.to_ne_bytes()),
    ];
    let entries = [
        (EVENTS, options.ring_bytes),
        ("SELECTED", options.processes_max),
        ("SCRATCH", source.scratches()),
        // A CPU takes one signal at a time.
        ("IMAGES", 1),
        ("SOCKETS_FOUND", source.sockets_found()),
        ("PLACES", source.places()),
    ];
    Object::load(&OBJECT.0, &Wishes { globals: &globals, entries: &entries, shared: &[] })
}

/// Loads programs, all at the same time, since the verifier takes a while for each, and attaches them.
fn attach(
    object: &Object,
    attachments: &[&Attachment],
    kernel: &Kernel,
) -> Result<Vec<Attached>, CaptureError> {
    let mut wanted = Vec::new();
    for attachment in attachments {
        if let Some(kind) = kernel.kind(attachment)? {
            wanted.push((attachment.program, kind));
        }
    }
    let load = |(name, kind): (&'static str, Kind)| (name, object.program(name, kind));
    let loaded: Vec<_> = thread::scope(|scope| {
        let spawn = |program: &(&'static str, Kind)| {
            let program = *program;
            let thread = thread::Builder::new().name("load".to_owned());
            // Without a thread it happens here.
            thread.spawn_scoped(scope, move || load(program)).map_err(|_| load(program))
        };
        let threads: Vec<_> = wanted.iter().map(spawn).collect();
        let join = |thread: Result<thread::ScopedJoinHandle<'_, _>, _>| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(loaded) => loaded,
        };
        threads.into_iter().map(join).collect()
    });
    let attach = |(name, program): (&'static str, Result<OwnedFd, ObjectError>)| {
        let attached = program.map_err(AttachError::from).and_then(|program| {
            let link = program::attach(program.as_fd()).map_err(AttachError::Link)?;
            Ok(Attached { name, _link: link, program })
        });
        attached.map_err(|source| CaptureError::Attach { program: name, source })
    };
    loaded.into_iter().map(attach).collect()
}
