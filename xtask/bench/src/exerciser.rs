//! The process whose operations are measured, and the benchmark's end of it.
//!
//! It has one thread that holds both ends of every connection and does what lines on its standard
//! input say: `KIND COUNT`, answered by `OPERATIONS CPU_NS WALL_NS`. What goes over its sockets is
//! HTTP, so that nothing can be cheap for being no request.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::sys;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request and its answer over TCP: two sends, two receives.
    Tcp,
    /// The same over a Unix socket.
    Unix,
    /// A system call that does nothing.
    Getppid,
    /// A write to a pipe and a read from it.
    Pipe,
    /// A write to a file and a read from it.
    File,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Getppid => "getppid",
            Self::Pipe => "pipe",
            Self::File => "file",
        }
    }

    /// How many operations one count means.
    fn operations(self) -> u64 {
        match self {
            Self::Tcp | Self::Unix => 4,
            Self::Getppid => 1,
            Self::Pipe | Self::File => 2,
        }
    }
}

/// What a batch took.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    operations: u64,
    cpu_ns: u64,
    wall_ns: u64,
}

impl Batch {
    /// CPU time of one operation.
    pub(crate) fn cpu_ns(self) -> f64 {
        self.cpu_ns as f64 / self.operations as f64
    }

    /// Time that passed with one operation.
    pub(crate) fn wall_ns(self) -> f64 {
        self.wall_ns as f64 / self.operations as f64
    }
}

/// The benchmark's end.
pub(crate) struct Exerciser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Exerciser {
    /// Starts one on the first CPU with `connections`, whose operations move `bytes`.
    pub(crate) fn start(bytes: usize, connections: usize) -> Result<Self> {
        let me = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(me);
        command.args(["exerciser", &bytes.to_string(), &connections.to_string()]);
        sys::pinned(&mut command, 0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the exerciser")?;
        let commands = child.stdin.take().context("stdin is a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        let mut exerciser = Self { child, commands, answers };
        ensure!(exerciser.answer()?.trim() == "ready", "the exerciser did not start");
        Ok(exerciser)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Does `count` of them.
    pub(crate) fn batch(&mut self, kind: Kind, count: u64) -> Result<Batch> {
        writeln!(self.commands, "{} {count}", kind.name()).context("the exerciser has ended")?;
        let answer = self.answer()?;
        let numbers: Vec<u64> = answer.split_whitespace().flat_map(str::parse).collect();
        let [operations, cpu_ns, wall_ns] = *numbers else {
            bail!("the exerciser said {answer:?}");
        };
        Ok(Batch { operations, cpu_ns, wall_ns })
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the exerciser does not answer")?;
        Ok(line)
    }
}

impl Drop for Exerciser {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's end: serves until standard input is closed.
pub(crate) fn serve() -> Result<()> {
    let mut args = std::env::args().skip(2).map(|word| word.parse::<usize>());
    let mut number = || args.next().context("an argument is missing")?.map_err(anyhow::Error::from);
    let mut work = Work::new(number()?, number()?)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let (kind, count) = line.split_once(' ').context("a command is KIND COUNT")?;
        let all = [Kind::Tcp, Kind::Unix, Kind::Getppid, Kind::Pipe, Kind::File];
        let Some(kind) = all.into_iter().find(|known| known.name() == kind) else {
            bail!("no kind {kind:?}");
        };
        let count: u64 = count.parse()?;
        let (begun, cpu) = (Instant::now(), sys::thread_cpu_ns());
        work.run(kind, count)?;
        let cpu_ns = sys::thread_cpu_ns() - cpu;
        let wall_ns = begun.elapsed().as_nanos();
        println!("{} {cpu_ns} {wall_ns}", count * kind.operations());
    }
    Ok(())
}

/// Both ends of everything.
struct Work {
    request: Vec<u8>,
    response: Vec<u8>,
    buffer: Vec<u8>,
    connections: Vec<(TcpStream, TcpStream)>,
    /// Which connection is next.
    next: usize,
    unix: (UnixStream, UnixStream),
    pipe: (PipeReader, PipeWriter),
    file: File,
}

impl Work {
    fn new(bytes: usize, connections: usize) -> Result<Self> {
        sys::raise_descriptors().context("cannot have more descriptors")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let mut pairs = Vec::new();
        for _ in 0..connections {
            let client = TcpStream::connect(listener.local_addr()?).context("cannot connect")?;
            let (server, _) = listener.accept().context("cannot accept")?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            pairs.push((client, server));
        }
        Ok(Self {
            request: padded("GET /bench HTTP/1.1\r\nHost: localhost\r\n", bytes)?,
            response: padded("HTTP/1.1 204 No Content\r\n", bytes)?,
            // The floor reads a fixed number of bytes, whatever an operation moves.
            buffer: vec![0; bytes.max(4096)],
            connections: pairs,
            next: 0,
            unix: UnixStream::pair().context("no Unix sockets")?,
            pipe: std::io::pipe().context("no pipe")?,
            file: scratch_file()?,
        })
    }

    fn run(&mut self, kind: Kind, count: u64) -> Result<()> {
        let bytes = self.request.len();
        let Self { request, response, buffer, connections, next, unix, pipe, file } = self;
        let buffer = buffer.get_mut(..bytes).context("the buffer is long enough")?;
        for _ in 0..count {
            match kind {
                Kind::Tcp => {
                    let (client, server) =
                        connections.get_mut(*next).context("there are no connections")?;
                    exchange(client, server, request, response, buffer)?;
                    *next = if *next + 1 == connections.len() { 0 } else { *next + 1 };
                }
                Kind::Unix => {
                    let (client, server) = &mut *unix;
                    exchange(client, server, request, response, buffer)?;
                }
                Kind::Getppid => sys::getppid(),
                Kind::Pipe => {
                    pipe.1.write_all(request)?;
                    pipe.0.read_exact(buffer)?;
                }
                Kind::File => {
                    file.write_all_at(request, 0)?;
                    file.read_exact_at(buffer, 0)?;
                }
            }
        }
        Ok(())
    }
}

fn exchange<S: Read + Write>(
    client: &mut S,
    server: &mut S,
    request: &[u8],
    response: &[u8],
    buffer: &mut [u8],
) -> Result<()> {
    client.write_all(request)?;
    server.read_exact(buffer)?;
    server.write_all(response)?;
    client.read_exact(buffer)?;
    Ok(())
}

/// A message whose head fills exactly so many bytes.
fn padded(head: &str, bytes: usize) -> Result<Vec<u8>> {
    const REST: &str = "X: \r\n\r\n";
    let fill = bytes.checked_sub(head.len() + REST.len());
    let fill = fill.with_context(|| format!("{bytes} bytes are too few for {head:?}"))?;
    Ok(format!("{head}X: {}\r\n\r\n", "x".repeat(fill)).into_bytes())
}

/// A file that nobody else sees.
fn scratch_file() -> Result<File> {
    let path = std::env::temp_dir().join(format!("remora-bench-{}", std::process::id()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_length_that_was_asked_for() {
        let text = padded("GET /bench HTTP/1.1\r\nHost: localhost\r\n", 64).expect("fits");
        assert_eq!(text.len(), 64);
        assert!(text.ends_with(b"\r\n\r\n"));
        assert!(padded("HTTP/1.1 204 No Content\r\n", 20).is_err());
    }
}
