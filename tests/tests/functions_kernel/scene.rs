//! The program under test, beside capture and function probes, and what the ring says of its hits.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use agent_common::function::{Chunk, Hit, Op};
use agent_common::kind;
use remora::function::FunctionNo;
use remora::function::site::{CostClass, Site, SiteKind};
use remora::inspect::address::{FileOffset, VirtAddr};
use remora::probe::function::selftest::SelfTest;
use remora::probe::function::{FunctionProbes, Limits, Point, TaskSource};
use remora::probe::{Capture, Options};
use remora_tests::until;

/// Says that this process is the program.
pub(crate) const PROGRAM: &str = "REMORA_TEST_PROBED";

/// A started program.
pub(crate) struct Program {
    pub(crate) child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    addresses: HashMap<String, u64>,
}

impl Program {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("it runs"))
            .args(["--exact", "probed_program", "--nocapture", "--test-threads=1"])
            .env(PROGRAM, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started once more");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut program = Self { child, input, output, addresses: HashMap::new() };
        program.read_addresses();
        program
    }

    /// Reads what it prints at start.
    pub(crate) fn read_addresses(&mut self) {
        self.addresses.clear();
        loop {
            let line = self.line();
            if line == "ready" {
                return;
            }
            // libtest says something, too.
            let Some((name, address)) = line.split_once(" 0x") else { continue };
            let address = u64::from_str_radix(address, 16).expect("hexadecimal");
            self.addresses.insert(name.to_owned(), address);
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    /// Has it do something; what it says.
    pub(crate) fn run(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("it listens");
        self.line()
    }

    /// As [`run`](Self::run), for what says a number.
    pub(crate) fn number(&mut self, command: &str) -> i64 {
        self.run(command).parse().expect("a number")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn file(&self) -> PathBuf {
        std::env::current_exe().expect("it runs")
    }

    pub(crate) fn address(&self, name: &str) -> u64 {
        *self.addresses.get(name).expect("a name that it prints")
    }

    /// Where an instruction lies in the file.
    pub(crate) fn offset(&self, name: &str) -> u64 {
        let address = self.address(name);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.id())).expect("it runs");
        let found = maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (from, to) = words.next()?.split_once('-')?;
            let from = u64::from_str_radix(from, 16).ok()?;
            let to = u64::from_str_radix(to, 16).ok()?;
            let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
            (from..to).contains(&address).then(|| address - from + offset)
        });
        found.expect("it is mapped")
    }

    /// What lies in its memory.
    pub(crate) fn text(&self, name: &str, bytes: usize) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.id())).expect("it runs");
        let mut text = vec![0; bytes];
        memory.read_exact_at(&mut text, self.address(name)).expect("it is mapped");
        text
    }

    /// A probe at a named instruction.
    pub(crate) fn point(&self, name: &str, kind: SiteKind, ops: &[Op]) -> Point {
        point(self.offset(name), kind, ops)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }
}

/// A probe at an offset, of function 0.
pub(crate) fn point(offset: u64, kind: SiteKind, ops: &[Op]) -> Point {
    let site = Site {
        address: VirtAddr(0),
        offset: FileOffset(offset),
        kind,
        jumps_if: None,
        sp_adjust: 0,
        cost: CostClass::Emulated,
    };
    let (function, task) = (FunctionNo(0), TaskSource::Thread);
    Point { site, ops: ops.to_vec(), function, semaphore: None, task }
}

/// A hit as user space gets it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) hit: Hit,
    pub(crate) chunks: Vec<(Chunk, Vec<u8>)>,
}

impl Told {
    fn read(record: &[u8]) -> Self {
        let u16_at = |at: usize| u16::from_ne_bytes(record[at..at + 2].try_into().expect("two"));
        let u32_at = |at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().expect("four"));
        let u64_at = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().expect("eight"));
        let hit = Hit {
            header: agent_common::Header {
                kind: record[0],
                flags: record[1],
                cpu: u16_at(2),
                cpu_seq: u32_at(4),
                ts_ns: u64_at(8),
            },
            tgid: u32_at(16),
            tid: u32_at(20),
            task: u64_at(24),
            sp: u64_at(32),
            site: u32_at(40),
            suppressed: u32_at(44),
            copied: u16_at(48),
            task_kind: record[50],
            stack: record[51],
            lost: u32_at(52),
        };
        let end = size_of::<Hit>() + usize::from(hit.copied);
        let mut at = size_of::<Hit>();
        let mut chunks = Vec::new();
        while at < end {
            let chunk = Chunk { number: u16_at(at), status: u16_at(at + 2), bytes: u32_at(at + 4) };
            let from = at + size_of::<Chunk>();
            let to = from + chunk.bytes as usize;
            chunks.push((chunk, record[from..to].to_vec()));
            at = to.next_multiple_of(8);
            assert!(record[to..at].iter().all(|byte| *byte == 0), "padding is zero");
        }
        assert_eq!(at, end, "chunks fill the record");
        Self { hit, chunks }
    }

    /// The bytes of a chunk.
    pub(crate) fn chunk(&self, number: u16) -> &[u8] {
        let found = self.chunks.iter().find(|(chunk, _)| chunk.number == number);
        &found.unwrap_or_else(|| panic!("no chunk {number} in {self:?}")).1
    }

    /// A chunk as a number.
    pub(crate) fn number(&self, number: u16) -> i64 {
        i64::from_ne_bytes(self.chunk(number).try_into().expect("eight bytes"))
    }

    pub(crate) fn status(&self, number: u16) -> u16 {
        let found = self.chunks.iter().find(|(chunk, _)| chunk.number == number);
        found.unwrap_or_else(|| panic!("no chunk {number} in {self:?}")).0.status
    }
}

/// Capture and function probes.
pub(crate) struct Scene {
    // Dropped first, as in the agent.
    pub(crate) probes: FunctionProbes,
    pub(crate) capture: Capture,
}

impl Scene {
    pub(crate) fn start() -> Self {
        Self::with_ring(1 << 22)
    }

    pub(crate) fn with_ring(ring_bytes: u32) -> Self {
        let options = Options {
            source: None,
            ring_bytes,
            processes_max: 64,
            payload_limit: 64,
            rules: false,
        };
        let capture = Capture::start(&options).expect("this kernel can");
        let probes = FunctionProbes::load(&capture, Limits::default(), &SelfTest::ASSUMED);
        let probes = probes.unwrap_or_else(|error| {
            panic!("{error}: {:?}", std::error::Error::source(&error));
        });
        Self { probes, capture }
    }

    /// Whether many probes can be attached here; says why not.
    pub(crate) fn attaches_at_once(&self) -> bool {
        let at_once = self.probes.points_max().is_none();
        if !at_once {
            println!("elsewhere: needs uprobe_multi links (Linux 6.6)");
        }
        at_once
    }

    pub(crate) fn select(&mut self, program: &Program) {
        self.capture.selection().select_functions(program.id()).expect("room for one");
    }

    /// Every hit in the ring.
    pub(crate) fn drain(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        self.capture.split().0.drain(usize::MAX, |record| {
            if record.first() == Some(&kind::HIT) {
                told.push(Told::read(record));
            }
        });
        told
    }

    /// Has the calls of one of its functions told: what is read at its entry, and at its return.
    pub(crate) fn probe(&mut self, program: &Program, name: &str, entry: &[Op], end: &[Op]) {
        let entry = program.point(name, SiteKind::Entry, entry);
        let end = program.point(&format!("{name}_return"), SiteKind::Return, end);
        self.attach(program, &[entry, end]);
        self.select(program);
    }

    /// Attaches points that the kernel takes to the program.
    pub(crate) fn attach(&mut self, program: &Program, points: &[Point]) -> Vec<u32> {
        let attached = self.probes.attach(&program.file(), Some(program.id()), points);
        let attached = attached.expect("it can be probed");
        assert!(attached.refused.is_empty(), "{:?}", attached.refused);
        attached.sites.iter().map(|site| site.0).collect()
    }
}

/// Waits until a condition holds.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}
