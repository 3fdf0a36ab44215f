//! Tries function probes on a throw-away child before they meet a target: whether they read what is
//! there and change nothing, and what a hit costs on this host.
//!
//! It has a program and maps of its own, so it disturbs no capture that is under way.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use agent_common::function::{Hit, IMAGE_MAX, Op, op, register};
use agent_common::{Selected, kind, select};

use super::loader::Attach;
use super::{
    FunctionError, FunctionProbes, HitCosts, Limits, Point, TaskSource, exercise, unusable,
};
use crate::event::image;
use crate::function::FunctionNo;
use crate::function::site::{Condition, CostClass, Site, SiteKind};
use crate::inspect::address::{FileOffset, VirtAddr};
use crate::platform::btf::{Btf, BtfError};
use crate::probe::capture::{Capture, Shared};
use crate::probe::ring::Ring;
use crate::probe::{bpf, offsets};

/// How long the child may take for an answer before it is taken for broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// No functions to try it on.
    #[error("function probes are not tried on this architecture")]
    Architecture,
    /// The kernel's types are missing or differ.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// Loading or attaching failed.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The child could not be started or asked.
    #[error("cannot talk to a child process to try function probes on")]
    Child(#[source] io::Error),
    /// The child's code is not where it should be.
    #[error("cannot find this program's code in /proc/self/maps")]
    Code,
    /// The child died, hung or computed something else.
    #[error("a child process did not survive function probes unchanged: it was asked for `{0}`")]
    Harmed(&'static str),
    /// Something else was read than there was.
    #[error("a function probe did not tell what was there: {0}")]
    Untrue(&'static str),
}

impl SelfTestError {
    /// Whether function probes must not be used here: they were tried, and harmed the child or lied.
    /// Otherwise they could not be tried.
    pub fn forbids(&self) -> bool {
        matches!(self, Self::Harmed(_) | Self::Untrue(_))
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTest {
    /// What a hit costs.
    pub costs: HitCosts,
    /// Whether many probes are attached at once (Linux 6.6), not each on its own.
    pub at_once: bool,
    /// Whether a probe of one process sees its threads: not so on some kernels from 6.6 to 6.9.
    pub sees_threads: bool,
    /// Whether a probe on a five-byte NOP leaves the red zone alone. Such places are never probed; this
    /// is for information. `None`: it was not tried, or nothing was told.
    pub nop5_is_safe: Option<bool>,
}

impl SelfTest {
    /// What is assumed of a host where nothing was tried.
    pub const ASSUMED: Self =
        Self { costs: HitCosts::ASSUMED, at_once: true, sees_threads: true, nop5_is_safe: None };
}

/// Tries it.
pub fn run() -> Result<SelfTest, SelfTestError> {
    let types = Btf::from_sys_fs()?;
    run_with(offsets::resolve(&types)?)
}

/// As [`run`], without reading the kernel's types once more.
pub fn run_beside(capture: &Capture) -> Result<SelfTest, SelfTestError> {
    run_with(capture.shared().offsets.clone())
}

fn run_with(fields: Vec<u32>) -> Result<SelfTest, SelfTestError> {
    let begun = Instant::now();
    let mut trial = Trial::start(fields)?;
    let started = begun.elapsed();
    let verdict = trial.run();
    tracing::debug!(?started, all = ?begun.elapsed(), "function probes tried on a child");
    // Detaching takes the kernel longer than all the rest, and nothing waits for it. Without a thread it
    // happens here.
    let _ = std::thread::Builder::new().name("self-test".to_owned()).spawn(move || drop(trial));
    verdict
}

/// The function whose hits tell a stack; 0 is that of all others.
const IMAGES: FunctionNo = FunctionNo(1);

/// The ring's size: room for all hits of a trial.
const RING_BYTES: u32 = 1 << 18;

/// Tells the first two arguments.
const READS: [Op; 5] = [
    op_of(op::CHUNK, 0, 0, 1),
    op_of(op::REGISTER, register::RDI, 0, 0),
    op_of(op::PUT, 0, 8, 0),
    op_of(op::REGISTER, register::RSI, 0, 0),
    op_of(op::PUT, 0, 8, 0),
];

struct Trial {
    // Dropped first: what it has attached is gone before the child is.
    probes: FunctionProbes,
    ring: Ring,
    child: Exerciser,
    offsets: [u64; 5],
}

impl Trial {
    fn start(fields: Vec<u32>) -> Result<Self, SelfTestError> {
        let places = exercise::places().ok_or(SelfTestError::Architecture)?;
        let offsets = file_offsets(places).ok_or(SelfTestError::Code)?;
        let shared = Shared { maps: Vec::new(), offsets: fields, wake_bytes: u64::MAX };
        let limits = Limits { sites: 32, ops: 64, functions: 2, links: 4 };
        let entries = [("EVENTS", RING_BYTES), ("SELECTED", 1)];
        let mut probes =
            FunctionProbes::load_with(&Arc::new(shared), &entries, limits, &SelfTest::ASSUMED)?;
        let (ring, bytes) = probes.loaded.maps.take("EVENTS").map_err(FunctionError::from)?;
        let ring = Ring::new(ring, bytes).map_err(|source| unusable("EVENTS", source))?;
        let child = Exerciser::start().map_err(SelfTestError::Child)?;
        Ok(Self { probes, ring, child, offsets })
    }

    fn run(&mut self) -> Result<SelfTest, SelfTestError> {
        let plain = self.child.calls()?;
        let tgid = self.child.child.id();
        let selected = Selected { bits: select::FUNCTIONS, ..Selected::default() };
        let map = self.probes.loaded.maps.fd("SELECTED").map_err(FunctionError::from)?;
        bpf::update(map, &tgid, &[selected]).map_err(|source| unusable("SELECTED", source))?;
        let [emulated, stepped, read, nop5, _] = self.offsets;
        let points = [point(emulated, &[]), point(stepped, &[]), point(read, &READS)];
        self.attach(tgid, &points)?;
        let probed = self.child.calls()?;
        if self.told().len() < 2 {
            return Err(SelfTestError::Untrue("calls were not seen"));
        }
        if self.child.ask("read")? != [8.0] {
            return Err(SelfTestError::Harmed("read"));
        }
        if self.told() != [(3, 5)] {
            return Err(SelfTestError::Untrue("arguments"));
        }
        if self.child.ask("thread")? != [80.0] {
            return Err(SelfTestError::Harmed("thread"));
        }
        let sees_threads = self.told() == [(30, 50)];
        self.try_jumps(tgid)?;
        let cost = |probed: f64, plain: f64| (probed - plain).max(1.0).round() as u32;
        let costs = HitCosts {
            emulated_ns: cost(probed.0, plain.0),
            stepped_ns: cost(probed.1, plain.1),
            image_ns: self.image_ns(tgid)?,
        };
        let at_once = self.probes.loaded.attach == Attach::Multi;
        // Last, since the child may not survive it.
        let nop5_is_safe = match self.attach(tgid, &[point(nop5, &[])]) {
            Ok(()) => Some(self.child.ask("nop5").is_ok_and(|good| good == [4.0])),
            // Before Linux 6.18 many kernels took no probe there at all.
            Err(_) => None,
        };
        Ok(SelfTest { costs, at_once, sees_threads, nop5_is_safe })
    }

    /// Whether conditional jumps go where they do without probes, and only those that are taken are told.
    fn try_jumps(&mut self, tgid: u32) -> Result<(), SelfTestError> {
        let [.., jumps] = self.offsets;
        let plain = self.child.ask("jumps")?;
        let points: Vec<Point> = (0u8..)
            .map_while(Condition::of_code)
            .zip(0..exercise::CONDITIONS)
            .map(|(condition, number)| {
                let at = point(jumps + exercise::jump(number), &READS);
                let jumps_if = Some(condition);
                Point { site: Site { kind: SiteKind::TailCall, jumps_if, ..at.site }, ..at }
            })
            .collect();
        self.attach(tgid, &points)?;
        if self.child.ask("jumps")? != plain {
            return Err(SelfTestError::Harmed("jumps"));
        }
        let taken: Vec<(u64, u64)> = (0u64..)
            .zip(&plain)
            .flat_map(|(condition, taken)| {
                let numbered = exercise::flags().enumerate();
                let taken = numbered.filter(|(number, _)| *taken as u64 >> number & 1 == 1);
                taken.map(move |(_, flags)| (flags, condition))
            })
            .collect();
        if self.told() != taken {
            return Err(SelfTestError::Untrue("conditional jumps"));
        }
        Ok(())
    }

    /// What the copy of a stack costs, by the kernel half's own clock: the least of a few.
    fn image_ns(&mut self, tgid: u32) -> Result<u32, SelfTestError> {
        const TIMES: usize = 5;
        let [emulated, ..] = self.offsets;
        let image = Point { function: IMAGES, ..point(emulated, &[op_of(op::IMAGE, 0, 0, 0)]) };
        self.attach(tgid, &[image])?;
        let hit_ns = u64::from(HitCosts::ASSUMED.emulated_ns);
        let (mut before, mut least) = (0, u64::MAX);
        for _ in 0..TIMES {
            if self.child.ask("stack")? != [8.0] {
                return Err(SelfTestError::Harmed("stack"));
            }
            if !self.tells_stack() {
                return Err(SelfTestError::Untrue("a stack"));
            }
            let after = self.probes.counters(IMAGES)?.cost_ns;
            least = least.min((after - before).saturating_sub(hit_ns));
            before = after;
        }
        Ok(u32::try_from(least).unwrap_or(u32::MAX).max(1))
    }

    /// Whether what was told since the last look has a whole stack.
    fn tells_stack(&mut self) -> bool {
        let mut is_told = false;
        while let Some(record) = self.ring.next() {
            is_told |= image::decode(record).is_some_and(|image| image.stack.len() == IMAGE_MAX);
        }
        is_told
    }

    fn attach(&mut self, tgid: u32, points: &[Point]) -> Result<(), SelfTestError> {
        let attached = self.probes.attach(Path::new("/proc/self/exe"), Some(tgid), points)?;
        match attached.refused.into_iter().next() {
            None => Ok(()),
            Some((_, source)) => {
                Err(FunctionError::Attach { path: "/proc/self/exe".into(), source }.into())
            }
        }
    }

    /// The two values that each hit told; zeroes where it read none.
    fn told(&mut self) -> Vec<(u64, u64)> {
        let mut told = Vec::new();
        while let Some(record) = self.ring.next() {
            if record.first() != Some(&kind::HIT) {
                continue;
            }
            // Behind the hit and the chunk's header.
            let at = |index: usize| {
                let from = size_of::<Hit>() + 8 + index * 8;
                let word = record.get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
                word.map_or(0, u64::from_ne_bytes)
            };
            told.push((at(0), at(1)));
        }
        told
    }
}

const fn op_of(code: u8, a: u8, b: u16, imm: i32) -> Op {
    Op { code, a, b, imm }
}

fn point(offset: u64, ops: &[Op]) -> Point {
    let (address, offset) = (VirtAddr(0), FileOffset(offset));
    let (kind, cost) = (SiteKind::Entry, CostClass::Emulated);
    let site = Site { address, offset, kind, jumps_if: None, sp_adjust: 0, cost };
    let (function, task) = (FunctionNo(0), TaskSource::Thread);
    Point { site, ops: ops.to_vec(), function, semaphore: None, task }
}

/// Where code of this program lies in its file.
pub fn file_offsets<const N: usize>(addresses: [u64; N]) -> Option<[u64; N]> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut offsets = [0; N];
    for (address, offset) in addresses.into_iter().zip(&mut offsets) {
        *offset = maps.lines().find_map(|line| file_offset(line, address))?;
    }
    Some(offsets)
}

/// As above, if `address` lies in the mapping of this line.
fn file_offset(line: &str, address: u64) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (from, to) = (number(from)?, number(to)?);
    let offset = number(words.nth(1)?)?;
    (from..to).contains(&address).then(|| address - from + offset)
}

/// The child.
struct Exerciser {
    child: Child,
    told: ChildStdin,
    answers: Receiver<String>,
}

impl Exerciser {
    fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("exercise-functions")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let told = child.stdin.take().ok_or_else(missing)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let (sender, answers) = mpsc::channel();
        // Ends with the child's output. A thread, so that a child that hangs is noticed.
        let reader = std::thread::Builder::new().name("self-test".to_owned());
        reader.spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, told, answers })
    }

    /// Nanoseconds of a call of the emulated and of the stepped function.
    fn calls(&mut self) -> Result<(f64, f64), SelfTestError> {
        match self.ask("calls")?[..] {
            [emulated, stepped] => Ok((emulated, stepped)),
            _ => Err(SelfTestError::Harmed("calls")),
        }
    }

    /// What it answers to a command.
    fn ask(&mut self, command: &'static str) -> Result<Vec<f64>, SelfTestError> {
        if writeln!(self.told, "{command}").is_err() {
            return Err(SelfTestError::Harmed(command));
        }
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => {
                let numbers = line.split_whitespace().map(str::parse);
                numbers.collect::<Result<_, _>>().map_err(|_| SelfTestError::Harmed(command))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(SelfTestError::Harmed(command))
            }
        }
    }
}

impl Drop for Exerciser {
    fn drop(&mut self) {
        // It ends by itself when its input does; this makes sure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_file_are_found() {
        let line = "00400000-00452000 r-xp 00001000 08:02 173521  /usr/bin/program";
        assert_eq!(file_offset(line, 0x40_0010), Some(0x1010));
        assert_eq!(file_offset(line, 0x45_2000), None);
        assert_eq!(file_offset("", 0), None);
        if let Some(places) = exercise::places() {
            assert!(file_offsets(places).is_some());
        }
    }
}
