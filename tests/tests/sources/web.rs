//! The programs that are traced: a store, a shop front that asks it, and a shopper. Each tells on
//! stdout, one line an exchange, what it did; the other process compares that with the spans.
#![expect(unsafe_code, reason = "std has no sendfile(2)")]

use std::fs::File;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// Size of what `/file` answers: more than a socket takes at once.
const FILE_BYTES: usize = 3_000_000;
/// Requests that several threads of the shopper make at one time.
const THREADS: usize = 4;
const EACH: usize = 5;

/// Runs as the program that the words name.
pub(crate) fn run(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    match words[..] {
        ["store", path] => store(Path::new(path)),
        ["front", port, path] => front(port.parse().expect("a port"), path),
        ["shopper", v4, v6, store, path] => {
            let [v4, v6, store] = [v4, v6, store].map(|port| port.parse().expect("a port"));
            Shopper { v4, v6, store, path: path.to_owned() }.shop();
        }
        ["asker", port] => {
            let mut server = tcp("127.0.0.1", port.parse().expect("a port"));
            say("ready");
            wait_for_line();
            server.write(b"GET /halves HTTP/1.1\r\nHost: host\r\n\r\n");
            let head = server.head().expect("an answer");
            say("head");
            assert_eq!(server.body(&head, false), 4);
            drop(server);
            say("closed");
        }
        ["passer", store] => {
            ask(&mut tcp("127.0.0.1", store.parse().expect("a port")), "/plain/passing");
        }
        _ => panic!("no such program: {words:?}"),
    }
}

/// A line for the other process.
fn say(line: &str) {
    // In one piece, so that threads do not mix their lines.
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").expect("someone listens");
    stdout.flush().expect("someone listens");
}

/// What a message says of itself.
#[derive(Clone, Default)]
struct Head {
    /// The first line's words.
    first: Vec<String>,
    length: Option<usize>,
    is_chunked: bool,
    /// `User-Agent`: the program that asks.
    asker: String,
}

/// A connection, and what has come over it and was not asked for yet.
struct Connection<S> {
    stream: S,
    waiting: Vec<u8>,
    /// Whether to read with several small buffers at once.
    is_vectored: bool,
}

impl<S: Read + Write> Connection<S> {
    fn new(stream: S) -> Self {
        Self { stream, waiting: Vec::new(), is_vectored: false }
    }

    /// False at the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 20_000];
        let (first, rest) = buffer.split_at_mut(7);
        let read = if self.is_vectored {
            self.stream.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(rest)])
        } else {
            self.stream.read(&mut buffer)
        };
        // A reset is an end as well.
        let read = read.unwrap_or(0);
        self.waiting.extend_from_slice(&buffer[..read]);
        read > 0
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.waiting.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.waiting[..at]).into_owned();
                self.waiting.drain(..at + 2);
                return Some(line);
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn head(&mut self) -> Option<Head> {
        let mut head = Head { first: words(&self.line()?), ..Head::default() };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { return Some(head) };
            match name {
                "Content-Length" => head.length = value.parse().ok(),
                "Transfer-Encoding" => head.is_chunked = true,
                "User-Agent" => value.clone_into(&mut head.asker),
                _ => {}
            }
        }
    }

    /// Takes this many bytes.
    fn take(&mut self, bytes: usize) {
        while self.waiting.len() < bytes {
            assert!(self.more(), "the other end has gone");
        }
        self.waiting.drain(..bytes);
    }

    /// Takes the body; its size.
    fn body(&mut self, head: &Head, ends_with_connection: bool) -> usize {
        if head.is_chunked {
            let mut sum = 0;
            loop {
                let size = self.line().expect("a chunk");
                let size = usize::from_str_radix(&size, 16).expect("a size");
                sum += size;
                self.take(size);
                let end = self.line();
                assert_eq!(end.as_deref(), Some(""));
                if size == 0 {
                    return sum;
                }
            }
        }
        if let Some(length) = head.length {
            self.take(length);
            return length;
        }
        if !ends_with_connection {
            return 0;
        }
        while self.more() {}
        self.waiting.drain(..).count()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the other end reads");
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Listens wherever it is told to and serves each connection with a thread of its own.
fn serve(
    listeners: impl IntoIterator<Item = Listener>,
    answer: impl Fn(&mut Connection<File>, &Head) -> bool + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    for listener in listeners {
        let answer = Arc::clone(&answer);
        std::thread::spawn(move || {
            loop {
                let connection = listener.accept();
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    // As a file: it is read and written by read(2), readv(2), write(2), writev(2)
                    // and sendfile(2); the askers use recvfrom(2) and sendto(2).
                    let mut connection = Connection::new(File::from(connection));
                    while let Some(head) = connection.head() {
                        if !answer(&mut connection, &head) {
                            return;
                        }
                    }
                });
            }
        });
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> OwnedFd {
        match self {
            Self::Tcp(listener) => listener.accept().expect("a connection").0.into(),
            Self::Unix(listener) => listener.accept().expect("a connection").0.into(),
        }
    }
}

/// Tells a served request, before its answer is whole.
fn served(me: &str, head: &Head, sizes: (usize, usize), status: &str) {
    let [method, path, _] = &head.first[..] else { panic!("{:?}", head.first) };
    let asker = match head.asker.as_str() {
        // Not traced.
        "" | "passer" => "-".to_owned(),
        asker => format!("{asker} client {path}"),
    };
    say(&format!("{me} server {method} {path} {status} {}/{} < {asker}", sizes.0, sizes.1));
}

/// Answers from its own shelves, in the way that the path names.
fn store(path: &Path) {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = tcp.local_addr().expect("it is bound").port();
    let unix = UnixListener::bind(path).expect("a new name");
    let shelf = path.with_extension("shelf");
    std::fs::write(&shelf, vec![b'x'; FILE_BYTES]).expect("the directory is ours");
    serve([Listener::Tcp(tcp), Listener::Unix(unix)], move |connection, head| {
        connection.is_vectored = head.first[1].starts_with("/vectored");
        let asked = connection.body(head, false);
        let tell = |bytes: usize, status: &str| served("store", head, (asked, bytes), status);
        let path = &head.first[1];
        let way = path.split('/').nth(1).unwrap_or_default();
        let plain = |status: &str| {
            format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\n\r\n{path}", path.len())
        };
        match way {
            "missing" | "fail" => {
                let status = if way == "fail" { "500" } else { "404" };
                tell(path.len(), status);
                connection.write(plain(status).as_bytes());
            }
            "none" => {
                tell(0, "204");
                connection.write(b"HTTP/1.1 204 No Content\r\n\r\n");
            }
            "vectored" => {
                tell(6, "200");
                let pieces = [
                    &b""[..],
                    b"HTTP/1.1",
                    b" 200 ",
                    b"OK\r\n",
                    b"",
                    b"Content-Length: 6\r\n",
                    b"\r\n",
                    b"abc",
                    b"",
                    b"def",
                ];
                let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
                let written = connection.stream.write_vectored(&pieces.map(IoSlice::new));
                assert_eq!(written.ok(), Some(whole));
            }
            "chunked" => {
                connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01");
                connection.write(b"234\r\n");
                connection.write(format!("1770\r\n{}\r\n", "y".repeat(6000)).as_bytes());
                tell(6005, "200");
                connection.write(b"0\r\n\r\n");
            }
            "file" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {FILE_BYTES}\r\n\r\n");
                connection.write(head.as_bytes());
                tell(FILE_BYTES, "200");
                send_file(&connection.stream, &File::open(&shelf).expect("written above"));
            }
            "eof" => {
                connection.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the ");
                tell(10, "200");
                connection.write(b"end");
                return false;
            }
            "gone" => {
                tell(0, "-");
                return false;
            }
            _ => {
                let answer = plain("200");
                let has_body = head.first[0] != "HEAD";
                tell(if has_body { path.len() } else { 0 }, "200");
                let end = if has_body { answer.len() } else { answer.len() - path.len() };
                connection.write(&answer.as_bytes()[..end]);
            }
        }
        true
    });
    say(&format!("ready {port}"));
    serve_on();
}

/// Sends `FILE_BYTES` of a file by sendfile(2).
fn send_file(to: &File, file: &File) {
    let mut left = FILE_BYTES;
    while left > 0 {
        let (to, file) = (to.as_raw_fd(), file.as_raw_fd());
        // SAFETY: two descriptors that are open, and no pointer.
        let sent = unsafe { libc::sendfile(to, file, std::ptr::null_mut(), left) };
        assert!(sent > 0, "{}", io::Error::last_os_error());
        left -= sent as usize;
    }
}

/// Asks the store for each request, over TCP or over the Unix socket, and passes its answer on.
fn front(store: u16, unix: &str) {
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).expect("a port"));
    let ports = listeners.each_ref().map(|one| one.local_addr().expect("bound").port());
    let unix = unix.to_owned();
    serve(listeners.map(Listener::Tcp), move |connection, head| {
        let asked = connection.body(head, false);
        let path = head.first[1].clone();
        let (way, rest) = path[1..].split_once('/').expect("two parts at least");
        let call = Call { me: "front", method: "GET", path: format!("/{rest}"), body: Vec::new() };
        let parent = format!("front server {path}");
        let (status, bytes) = match way {
            "unix" => call.make(&mut over_unix(&unix), &parent),
            _ => call.make(&mut tcp("127.0.0.1", store), &parent),
        };
        served("front", head, (asked, bytes), &status);
        let answer = format!("HTTP/1.1 {status} Passed\r\nContent-Length: {bytes}\r\n\r\n");
        connection.write(answer.as_bytes());
        connection.write("z".repeat(bytes).as_bytes());
        true
    });
    say(&format!("ready {} {}", ports[0], ports[1]));
    serve_on();
}

/// A request to make.
struct Call<'a> {
    me: &'a str,
    method: &'a str,
    path: String,
    /// Sent in these chunks.
    body: Vec<&'a str>,
}

impl Call<'_> {
    fn head(&self) -> String {
        let Self { me, method, path, .. } = self;
        let framing = if self.body.is_empty() { "" } else { "Transfer-Encoding: chunked\r\n" };
        format!("{method} {path} HTTP/1.1\r\nHost: host\r\nUser-Agent: {me}\r\n{framing}\r\n")
    }

    fn make<S: Read + Write>(
        &self,
        connection: &mut Connection<S>,
        parent: &str,
    ) -> (String, usize) {
        connection.write(self.head().as_bytes());
        let mut chunks = self.body.clone();
        if !chunks.is_empty() {
            chunks.push("");
        }
        for chunk in chunks {
            connection.write(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        self.answer(connection, parent)
    }

    /// Reads the answer and tells; its status and size.
    fn answer<S: Read + Write>(
        &self,
        connection: &mut Connection<S>,
        parent: &str,
    ) -> (String, usize) {
        let Self { me, method, path, body } = self;
        let sent: usize = body.iter().map(|chunk| chunk.len()).sum();
        let (status, bytes) = match connection.head() {
            None => ("-".to_owned(), 0),
            Some(head) => {
                let status = head.first[1].clone();
                let has_body = *method != "HEAD" && status != "204";
                let bytes = if has_body { connection.body(&head, true) } else { 0 };
                (status, bytes)
            }
        };
        say(&format!("{me} client {method} {path} {status} {sent}/{bytes} < {parent}"));
        (status, bytes)
    }
}

fn tcp(ip: &str, port: u16) -> Connection<TcpStream> {
    let stream = TcpStream::connect((ip, port)).expect("it listens");
    stream.set_nodelay(true).expect("TCP");
    Connection::new(stream)
}

fn over_unix(path: &str) -> Connection<UnixStream> {
    Connection::new(UnixStream::connect(path).expect("it listens"))
}

struct Shopper {
    v4: u16,
    v6: u16,
    store: u16,
    path: String,
}

impl Shopper {
    fn shop(&self) {
        let mut kept = tcp("127.0.0.1", self.v4);
        // Before anyone looks: not told by the one who asks.
        kept.write(b"GET /tcp/plain/before HTTP/1.1\r\nHost: host\r\n\r\n");
        let head = kept.head().expect("an answer");
        kept.body(&head, true);
        say("ready");
        wait_for_line();
        for path in ["/tcp/plain/kept/1", "/unix/plain/kept/2", "/tcp/missing/kept/3"] {
            ask(&mut kept, path);
        }
        let mut v6 = tcp("::1", self.v6);
        let body = vec!["first", "second chunk", "3"];
        let path = "/tcp/chunked/v6".to_owned();
        Call { me: "shopper", method: "POST", path, body }.make(&mut v6, "-");
        ask(&mut v6, "/unix/fail/v6");
        ask(&mut v6, "/tcp/vectored/v6");
        // One write, several requests.
        let mut direct = tcp("127.0.0.1", self.store);
        let calls = ["/plain/1", "/vectored/2", "/chunked/3"].map(|path| Call {
            me: "shopper",
            method: "GET",
            path: format!("{path}/pipelined"),
            body: Vec::new(),
        });
        let heads: String = calls.iter().map(Call::head).collect();
        direct.write(heads.as_bytes());
        for call in &calls {
            call.answer(&mut direct, "-");
        }
        let path = "/plain/head".to_owned();
        Call { me: "shopper", method: "HEAD", path, body: Vec::new() }.make(&mut direct, "-");
        ask(&mut direct, "/none/tcp");
        ask(&mut direct, "/file/tcp");
        ask(&mut direct, "/plain/after/file");
        ask(&mut direct, "/eof/tcp");
        ask(&mut tcp("127.0.0.1", self.store), "/gone/tcp");
        let mut unix = over_unix(&self.path);
        for path in ["/plain/unix", "/vectored/unix", "/chunked/unix", "/file/unix"] {
            ask(&mut unix, path);
        }
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut one = tcp("127.0.0.1", self.v4);
                    for number in 0..EACH {
                        let way = if number % 2 == 0 { "tcp" } else { "unix" };
                        ask(&mut one, &format!("/{way}/plain/busy/{thread}/{number}"));
                    }
                });
            }
        });
        say("done");
        wait_for_line();
    }
}

fn ask<S: Read + Write>(connection: &mut Connection<S>, path: &str) {
    let path = path.to_owned();
    Call { me: "shopper", method: "GET", path, body: Vec::new() }.make(connection, "-");
}

/// A server is ended from outside.
fn serve_on() {
    loop {
        std::thread::park();
    }
}

/// Returns at the end of the input, too.
fn wait_for_line() {
    io::stdin().lock().read_line(&mut String::new()).expect("stdin");
}
