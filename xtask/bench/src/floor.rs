//! Loads, attaches, drains and detaches the floors (`agent-ebpf/src/bin/floor.rs`). The only file
//! here that names aya.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};

use crate::sys;

/// How often the ring is drained: rarely, since wake-ups cost the server more than programs do.
const DRAIN: Duration = Duration::from_millis(20);

/// Which programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing, on both socket hooks.
    Empty,
    /// An event for every send and receive of the selected processes.
    Event,
    /// The same, with no process selected.
    Miss,
    /// An event for every request: kept with the socket until its answer.
    Exchange,
    /// Nothing, at the beginning and the end of every syscall.
    Syscalls,
}

impl Variant {
    /// Programs and their hooks.
    fn programs(self) -> [(&'static str, &'static str); 2] {
        const SEND: &str = "sock_send_length";
        const RECEIVE: &str = "sock_recv_length";
        match self {
            Self::Empty => [("empty_send", SEND), ("empty_recv", RECEIVE)],
            Self::Event | Self::Miss => [("event_send", SEND), ("event_recv", RECEIVE)],
            Self::Exchange => [("exchange_send", SEND), ("exchange_recv", RECEIVE)],
            Self::Syscalls => [("empty_sys_enter", "sys_enter"), ("empty_sys_exit", "sys_exit")],
        }
    }
}

/// Loaded programs, attached or not.
pub(crate) struct Floor {
    variant: Variant,
    ebpf: Ebpf,
    targets: HashMap<MapData, u32, u32>,
    lost: Array<MapData, u64>,
    /// Lent to the reader while attached.
    ring: Option<RingBuf<MapData>>,
}

/// What a floor's reader took from the ring.
#[derive(Clone, Copy, Default)]
pub(crate) struct Drained {
    pub(crate) events: u64,
    /// CPU time of the reader.
    pub(crate) cpu_ns: u64,
}

/// A link; its programs are detached with it.
#[expect(dead_code, reason = "held to be dropped")]
enum Link {
    Typed(BtfTracePointLink),
    Raw(RawTracePointLink),
}

/// Attached programs.
pub(crate) struct Attached<'a> {
    floor: &'a mut Floor,
    links: Vec<Link>,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<(RingBuf<MapData>, Drained)>,
}

impl Floor {
    /// Loads the programs. The `Exchange` ones see only `target`.
    pub(crate) fn load(object: &Path, variant: Variant, target: u32) -> Result<Self> {
        let bytes = std::fs::read(object);
        let bytes = bytes.with_context(|| format!("cannot read {}", object.display()))?;
        let btf = Btf::from_sys_fs().context("this kernel tells no types")?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("TARGET", &target, true)
            .load(&bytes)
            .context("cannot load the floors (root is needed)")?;
        for (name, hook) in variant.programs() {
            let program =
                ebpf.program_mut(name).context("the floors' object is not as expected")?;
            match variant {
                Variant::Syscalls => <&mut RawTracePoint>::try_from(program)?.load(),
                _ => <&mut BtfTracePoint>::try_from(program)?.load(hook, &btf),
            }
            .with_context(|| format!("cannot load floor {name}"))?;
        }
        let mut map = |name| ebpf.take_map(name).context("the floors' object is not as expected");
        let targets = HashMap::try_from(map("TARGETS")?)?;
        let lost = Array::try_from(map("LOST")?)?;
        let ring = Some(RingBuf::try_from(map("RING")?)?);
        Ok(Self { variant, ebpf, targets, lost, ring })
    }

    /// Tells of these processes' operations.
    pub(crate) fn select(&mut self, pids: &[u32]) -> Result<()> {
        for pid in pids {
            self.targets.insert(pid, 1, 0).context("cannot select a process")?;
        }
        Ok(())
    }

    /// Begins.
    pub(crate) fn attach(&mut self) -> Result<Attached<'_>> {
        let mut links = Vec::new();
        for (name, hook) in self.variant.programs() {
            let program = self.ebpf.program_mut(name).context("was loaded before")?;
            links.push(if self.variant == Variant::Syscalls {
                let program: &mut RawTracePoint = program.try_into()?;
                let id = program.attach(hook)?;
                Link::Raw(program.take_link(id)?)
            } else {
                let program: &mut BtfTracePoint = program.try_into()?;
                let id = program.attach()?;
                Link::Typed(program.take_link(id)?)
            });
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ring = self.ring.take().context("attached twice")?;
        let reader = read(ring, Arc::clone(&stop))?;
        Ok(Attached { floor: self, links, stop, reader })
    }
}

impl Attached<'_> {
    /// Ends; fails if an event was lost, which spoils the measurement.
    pub(crate) fn detach(self) -> Result<Drained> {
        drop(self.links);
        self.stop.store(true, Ordering::Relaxed);
        self.reader.thread().unpark();
        let Ok((ring, drained)) = self.reader.join() else {
            anyhow::bail!("the floor's reader has panicked");
        };
        self.floor.ring = Some(ring);
        let lost = self.floor.lost.get(&0, 0)?;
        ensure!(lost == 0, "the floor's ring was full: {lost} events are lost");
        Ok(drained)
    }
}

fn read(
    mut ring: RingBuf<MapData>,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<(RingBuf<MapData>, Drained)>> {
    let reader = std::thread::Builder::new().name("floor-reader".to_owned());
    let reader = reader.spawn(move || {
        let mut drained = Drained::default();
        loop {
            let ending = stop.load(Ordering::Relaxed);
            while let Some(record) = ring.next() {
                drained.events += u64::from(!record.is_empty());
            }
            if ending {
                drained.cpu_ns = sys::thread_cpu_ns();
                return (ring, drained);
            }
            std::thread::park_timeout(DRAIN);
        }
    });
    reader.context("cannot start the floor's reader")
}
