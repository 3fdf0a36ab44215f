//! The program that is captured: both ends of one connection in one process, every way to move
//! bytes over it. It tells on stdout what it did, one line an operation; the other process compares.

use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, iovec, mmsghdr, msghdr};
use remora_tests::uring::{self, Ring, call, done};

/// How much of an operation is copied, and of its end when it is longer.
pub(crate) const LIMIT: usize = 4096;
const SUFFIX: usize = 8;

/// What connects the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    /// An IPv6 socket that talks IPv4.
    Mapped,
    Unix,
}

impl Family {
    pub(crate) const ALL: [Self; 4] = [Self::V4, Self::V6, Self::Mapped, Self::Unix];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Mapped => "mapped",
            Self::Unix => "unix",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

fn at<T>(value: &T) -> usize {
    std::ptr::from_ref(value) as usize
}

fn vector(buffer: &[u8]) -> iovec {
    iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() }
}

fn message(vectors: &[iovec]) -> msghdr {
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_ptr().cast_mut();
    message.msg_iovlen = vectors.len();
    message
}

/// Bytes that differ from place to place and from call to call.
fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|index| ((index * 7 + index / 251 + seed * 31) % 253) as u8).collect()
}

/// One end of the connection.
struct End {
    name: &'static str,
    fd: OwnedFd,
}

impl End {
    fn fd(&self) -> usize {
        self.fd.as_raw_fd() as usize
    }

    fn duplicate(&self) -> OwnedFd {
        self.fd.try_clone().expect("another descriptor")
    }

    /// Tells what remora should have seen.
    fn tell(&self, way: &str, result: i64, payload: Option<&[u8]>) {
        let mut line = format!("op {} {way} {result} ", self.name);
        match payload {
            None => line.push('-'),
            Some(bytes) => {
                let (prefix, rest) = bytes.split_at(bytes.len().min(LIMIT));
                for byte in prefix {
                    write!(line, "{byte:02x}").expect("into a string");
                }
                line.push(' ');
                for byte in &rest[rest.len() - rest.len().min(SUFFIX)..] {
                    write!(line, "{byte:02x}").expect("into a string");
                }
            }
        }
        println!("{line}");
    }

    fn sent(&self, result: i64, payload: &[u8]) {
        assert!(result >= 0, "send failed: {result}");
        self.tell("out", result, Some(&payload[..result as usize]));
    }

    fn received(&self, result: i64, payload: &[u8]) {
        assert!(result >= 0, "receive failed: {result}");
        self.tell("in", result, Some(&payload[..result as usize]));
    }

    fn write(&self, bytes: &[u8]) {
        self.sent(
            call(libc::SYS_write, [self.fd(), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]),
            bytes,
        );
    }

    fn read(&self, bytes: usize) -> usize {
        let buffer = vec![0; bytes];
        let result = call(libc::SYS_read, [self.fd(), buffer.as_ptr() as usize, bytes, 0, 0, 0]);
        self.received(result, &buffer);
        result as usize
    }

    /// Reads exactly this many bytes, in however many calls.
    fn read_all(&self, mut bytes: usize) {
        while bytes > 0 {
            bytes -= self.read(bytes.min(65_536));
        }
    }

    fn raw(&self, number: libc::c_long, pointer: usize, length: usize, flags: c_int) -> i64 {
        call(number, [self.fd(), pointer, length, flags as usize, 0, 0])
    }

    fn set_nonblocking(&self, yes: bool) {
        let flags = done(libc::SYS_fcntl, [self.fd(), libc::F_GETFL as usize, 0, 0, 0, 0]);
        let bit = libc::O_NONBLOCK as usize;
        let flags = if yes { flags | bit } else { flags & !bit };
        done(libc::SYS_fcntl, [self.fd(), libc::F_SETFL as usize, flags, 0, 0, 0]);
    }
}

fn connect(family: Family, names: [&'static str; 2]) -> (End, End) {
    let (client, server) = match family {
        Family::Unix => {
            let name = format!("/tmp/remora-capture-{}.sock", std::process::id());
            let listener = std::os::unix::net::UnixListener::bind(&name).expect("bind");
            let client = std::os::unix::net::UnixStream::connect(&name).expect("connect");
            std::fs::remove_file(&name).expect("remove");
            (OwnedFd::from(client), OwnedFd::from(listener.accept().expect("accept").0))
        }
        Family::V4 => tcp("127.0.0.1:0", None),
        Family::V6 => tcp("[::1]:0", None),
        Family::Mapped => tcp("[::]:0", Some("127.0.0.1")),
    };
    (End { name: names[0], fd: client }, End { name: names[1], fd: server })
}

fn tcp(listen: &str, connect: Option<&str>) -> (OwnedFd, OwnedFd) {
    let listener = std::net::TcpListener::bind(listen).expect("bind");
    let mut address = listener.local_addr().expect("address");
    if let Some(ip) = connect {
        address.set_ip(ip.parse().expect("address"));
    }
    let client = std::net::TcpStream::connect(address).expect("connect");
    let (server, peer) = listener.accept().expect("accept");
    assert_eq!(peer.port(), client.local_addr().expect("address").port());
    (OwnedFd::from(client), OwnedFd::from(server))
}

/// Runs as the captured process.
pub(crate) fn run(arguments: &str) {
    let mut words = arguments.split(' ');
    let family = words.next().and_then(Family::named).expect("a family");
    let variant = words.next();
    let is_older = variant == Some("older");
    if variant == Some("namespace") {
        raise_loopback();
    }
    let (a, b) = connect(family, ["a", "b"]);
    if is_older {
        // In use before the agent selects this process; not told.
        let old = pattern(100, 1);
        done(libc::SYS_write, [a.fd(), old.as_ptr() as usize, 100, 0, 0, 0]);
        let buffer = [0u8; 100];
        done(libc::SYS_read, [b.fd(), buffer.as_ptr() as usize, 100, 0, 0, 0]);
    }
    println!("ready");
    std::io::stdout().flush().expect("stdout");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("stdin");
    if variant == Some("uring") {
        by_uring(&a, &b);
        println!("done");
        return;
    }
    plain(&a, &b);
    vectored(&a, &b);
    messages(&a, &b);
    many_messages(&a, &b);
    peeked_and_refused(&a, &b);
    partial(&a, &b);
    without_buffers(&a, &b);
    special_flags(&a, &b, family);
    ends(a, b, family);
    println!("done");
}

fn plain(a: &End, b: &End) {
    a.write(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(b.read(4096), 18);
    // A byte, and more than is copied.
    b.write(b"x");
    a.read(1);
    let large = pattern(20_000, 2);
    b.write(&large);
    a.read_all(20_000);
    let bytes = pattern(300, 3);
    a.sent(a.raw(libc::SYS_sendto, bytes.as_ptr() as usize, 300, 0), &bytes);
    let buffer = [0u8; 512];
    b.received(b.raw(libc::SYS_recvfrom, buffer.as_ptr() as usize, 512, 0), &buffer);
}

fn vectored(a: &End, b: &End) {
    for (segments, seed) in [
        (&[0, 1, 0, 0, 2, 3, 0][..], 4),
        (&[4090, 1, 1, 1, 1, 1, 1, 500, 2, 0, 3], 5),
        (&[0, 0, 9], 6),
        (&[100; 70], 7),
    ] {
        let total = segments.iter().sum();
        let bytes = pattern(total, seed);
        let mut rest = &bytes[..];
        let mut vectors = Vec::new();
        for &segment in segments {
            let (first, others) = rest.split_at(segment);
            vectors.push(vector(first));
            rest = others;
        }
        let result = a.raw(libc::SYS_writev, vectors.as_ptr() as usize, vectors.len(), 0);
        a.sent(result, &bytes);
        let buffer = vec![0u8; total];
        let mut rest = &buffer[..];
        let mut vectors = Vec::new();
        for &segment in segments.iter().rev() {
            let (first, others) = rest.split_at(segment);
            vectors.push(vector(first));
            rest = others;
        }
        let result = b.raw(libc::SYS_readv, vectors.as_ptr() as usize, vectors.len(), 0);
        assert_eq!(result as usize, total);
        b.received(result, &buffer);
    }
}

fn messages(a: &End, b: &End) {
    let bytes = pattern(700, 8);
    let vectors = [vector(&bytes[..0]), vector(&bytes[..200]), vector(&bytes[200..])];
    let sent = message(&vectors);
    a.sent(a.raw(libc::SYS_sendmsg, at(&sent), 0, 0), &bytes);
    let buffer = [0u8; 700];
    let vectors = [vector(&buffer[..3]), vector(&buffer[3..3]), vector(&buffer[3..])];
    let received = message(&vectors);
    b.received(b.raw(libc::SYS_recvmsg, at(&received), 0, 0), &buffer);

    // One message of the calls that can move several.
    let vectors = [vector(&bytes)];
    let mut sent = [mmsghdr { msg_hdr: message(&vectors), msg_len: 0 }];
    assert_eq!(a.raw(libc::SYS_sendmmsg, sent.as_mut_ptr() as usize, 1, 0), 1);
    a.sent(700, &bytes);
    let vectors = [vector(&buffer)];
    let mut received = [mmsghdr { msg_hdr: message(&vectors), msg_len: 0 }];
    assert_eq!(b.raw(libc::SYS_recvmmsg, received.as_mut_ptr() as usize, 1, 0), 1);
    b.received(i64::from(received[0].msg_len), &buffer);
}

/// Several messages in one call: their sizes are seen, their bytes are not.
fn many_messages(a: &End, b: &End) {
    let bytes = pattern(60, 9);
    let parts = [[vector(&bytes[..10])], [vector(&bytes[10..30])], [vector(&bytes[30..])]];
    let mut sent = parts.each_ref().map(|part| mmsghdr { msg_hdr: message(part), msg_len: 0 });
    assert_eq!(a.raw(libc::SYS_sendmmsg, sent.as_mut_ptr() as usize, 3, 0), 3);
    a.tell("out", 60, None);
    let buffer = [0u8; 60];
    let parts = [[vector(&buffer[..20])], [vector(&buffer[20..])]];
    let mut received = parts.each_ref().map(|part| mmsghdr { msg_hdr: message(part), msg_len: 0 });
    assert_eq!(b.raw(libc::SYS_recvmmsg, received.as_mut_ptr() as usize, 2, 0), 2);
    b.tell("in", 60, None);
    assert_eq!(&buffer[..], &bytes[..]);
}

/// What moves nothing along the stream leaves no event.
fn peeked_and_refused(a: &End, b: &End) {
    let bytes = pattern(50, 10);
    a.write(&bytes);
    let buffer = [0u8; 50];
    let pointer = buffer.as_ptr() as usize;
    assert_eq!(b.raw(libc::SYS_recvfrom, pointer, 50, libc::MSG_PEEK), 50);
    // Asking for nothing is not the end.
    assert_eq!(b.raw(libc::SYS_recvfrom, pointer, 0, 0), 0);
    assert_eq!(b.raw(libc::SYS_read, pointer, 0, 0), 0);
    let nothing = [vector(&buffer[..0]), vector(&buffer[..0])];
    assert_eq!(b.raw(libc::SYS_readv, nothing.as_ptr() as usize, 2, 0), 0);
    let asked = message(&nothing);
    assert_eq!(b.raw(libc::SYS_recvmsg, at(&asked), 0, 0), 0);
    b.read(50);
    b.set_nonblocking(true);
    let again = i64::from(-libc::EAGAIN);
    assert_eq!(b.raw(libc::SYS_read, pointer, 50, 0), again);
    assert_eq!(b.raw(libc::SYS_recvfrom, pointer, 50, 0), again);
    // A bad address says nothing about the connection.
    a.write(b"nonblocking");
    assert_eq!(b.raw(libc::SYS_read, 8, 11, 0), i64::from(-libc::EFAULT));
    b.read(11);
    b.set_nonblocking(false);
}

fn partial(a: &End, b: &End) {
    let bytes = pattern(1 << 20, 11).repeat(24);
    a.set_nonblocking(true);
    let result = call(libc::SYS_write, [a.fd(), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]);
    assert!(result > 0 && result < bytes.len() as i64, "partial, not {result}");
    a.sent(result, &bytes);
    a.set_nonblocking(false);
    b.read_all(result as usize);
}

fn without_buffers(a: &End, b: &End) {
    let bytes = pattern(100_000, 12);
    let file = done(libc::SYS_memfd_create, [c"bytes".as_ptr() as usize, 0, 0, 0, 0, 0]);
    // SAFETY: a descriptor that was just made and belongs to no one else.
    let file = unsafe { OwnedFd::from_raw_fd(file as c_int) };
    let file_fd = file.as_raw_fd() as usize;
    done(libc::SYS_write, [file_fd, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]);
    done(libc::SYS_lseek, [file_fd, 0, libc::SEEK_SET as usize, 0, 0, 0]);
    assert_eq!(done(libc::SYS_sendfile, [a.fd(), file_fd, 0, bytes.len(), 0, 0]), bytes.len());
    a.tell("out", 100_000, None);
    let buffer = vec![0u8; 100_000];
    let pointer = buffer.as_ptr() as usize;
    b.received(b.raw(libc::SYS_recvfrom, pointer, 100_000, libc::MSG_WAITALL), &buffer);
    assert_eq!(buffer, bytes);

    let mut ends = [0 as c_int; 2];
    done(libc::SYS_pipe2, [ends.as_mut_ptr() as usize, 0, 0, 0, 0, 0]);
    // SAFETY: as above.
    let pipe = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let [from, to] = pipe.each_ref().map(|fd| fd.as_raw_fd() as usize);
    done(libc::SYS_write, [to, pointer, 3000, 0, 0, 0]);
    assert_eq!(done(libc::SYS_splice, [from, 0, a.fd(), 0, 3000, 0]), 3000);
    a.tell("out", 3000, None);
    b.read_all(3000);
}

fn special_flags(a: &End, b: &End, family: Family) {
    if family == Family::Unix {
        return;
    }
    let buffer = [0u8; 30_000];
    let pointer = buffer.as_ptr() as usize;
    // TCP throws away what is received with MSG_TRUNC.
    a.write(&pattern(10, 13));
    assert_eq!(b.raw(libc::SYS_recvfrom, pointer, 10, libc::MSG_TRUNC), 10);
    b.tell("in", 10, None);
    let one: c_int = 1;
    let option = [libc::SOL_SOCKET as usize, libc::SO_ZEROCOPY as usize, at(&one), 4];
    done(libc::SYS_setsockopt, [a.fd(), option[0], option[1], option[2], option[3], 0]);
    let bytes = pattern(30_000, 14);
    a.sent(a.raw(libc::SYS_sendto, bytes.as_ptr() as usize, 30_000, libc::MSG_ZEROCOPY), &bytes);
    b.read_all(30_000);
    // The notification is read from the error queue, not from the stream.
    let control = [0u8; 256];
    let mut asked = message(&[]);
    asked.msg_control = control.as_ptr().cast_mut().cast();
    asked.msg_controllen = control.len();
    let _ = b.raw(libc::SYS_recvmsg, at(&asked), libc::MSG_ERRQUEUE as usize, 0);
    let _ = a.raw(libc::SYS_recvmsg, at(&asked), libc::MSG_ERRQUEUE as usize, 0);
}

fn ends(a: End, b: End, family: Family) {
    done(libc::SYS_shutdown, [a.fd(), libc::SHUT_WR as usize, 0, 0, 0, 0]);
    let buffer = [0u8; 16];
    assert_eq!(b.raw(libc::SYS_read, buffer.as_ptr() as usize, 16, 0), 0);
    b.tell("in", 0, None);
    b.write(b"last words");
    a.read(10);
    drop(b);
    drop(a);
    // Closed with something unread: the other end sees a reset.
    let (c, d) = connect(family, ["c", "d"]);
    c.write(b"never read");
    drop(d);
    let result = c.raw(libc::SYS_read, buffer.as_ptr() as usize, 16, 0);
    assert_eq!(result, i64::from(-libc::ECONNRESET));
    println!("failed c {}", libc::ECONNRESET);
}

/// Brings up `lo` of a fresh network namespace.
fn raise_loopback() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: all fields are integers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as i8, b'o' as i8]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let number = libc::SIOCSIFFLAGS as usize;
    done(libc::SYS_ioctl, [socket.as_raw_fd() as usize, number, at(&request), 0, 0, 0]);
}

/// What io_uring moves is seen with its size only, whoever does it and whatever syscall the task
/// is in meanwhile.
fn by_uring(a: &End, b: &End) {
    for is_polled in [false, true] {
        let Some(ring) = Ring::new(is_polled) else {
            println!("no io_uring");
            return;
        };
        for flags in [0, uring::ASYNC] {
            let bytes = pattern(200, 20);
            ring.submit(true, a.fd(), &bytes, flags);
            assert_eq!(ring.result(), 200);
            a.tell("out", 200, None);
            let buffer = [0u8; 300];
            ring.submit(false, b.fd(), &buffer, flags);
            assert_eq!(ring.result(), 200);
            b.tell("in", 200, None);
            assert_eq!(&buffer[..200], &bytes[..]);
            // Begun before there is anything to receive, finished in the middle of another receive
            // of the same task, into another buffer.
            let (c, d) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let c = End { name: "c", fd: c.into() };
            ring.submit(false, b.fd(), &buffer, flags);
            let sender = std::thread::spawn({
                let (d, a) =
                    (End { name: "d", fd: d.into() }, End { name: "a", fd: a.duplicate() });
                move || {
                    a.write(&pattern(100, 21));
                    d.write(&pattern(50, 22));
                }
            });
            c.read(300);
            assert_eq!(ring.result(), 100);
            b.tell("in", 100, None);
            sender.join().expect("it ends");
        }
        // The task's own syscalls are believed again.
        a.write(b"by hand");
        b.read(7);
    }
}
