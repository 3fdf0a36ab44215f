//! A client that writes exactly the bytes it is given.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::Command;

use crate::DEADLINE;

/// A connection to a port of this host.
pub struct Wire {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Panics
    /// If nothing listens there.
    pub fn to(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("something listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, seen: Vec::new() }
    }

    /// Writes bytes, in one call if the socket takes them.
    ///
    /// # Panics
    /// If the peer has gone.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).expect("the peer reads");
        self
    }

    /// Reads until what has come contains `text`, and takes everything that has come.
    ///
    /// # Panics
    /// If it does not come.
    pub fn expect(&mut self, text: &str) -> String {
        let mut buffer = [0; 65536];
        loop {
            let here = String::from_utf8_lossy(&self.seen).into_owned();
            if here.contains(text) {
                self.seen.clear();
                return here;
            }
            let read = self.stream.read(&mut buffer).expect("the peer answers");
            assert!(read > 0, "the peer closed after {here:?}");
            self.seen.extend_from_slice(&buffer[..read]);
        }
    }

    /// Reads to the end of the stream.
    pub fn rest(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.seen);
        // A reset is an end as well.
        let _ = self.stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the sending direction.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// This end's port.
    ///
    /// # Panics
    /// Never: it is connected.
    pub fn port(&self) -> u16 {
        self.stream.local_addr().expect("it is connected").port()
    }
}

/// One `GET` on a connection of its own; the whole answer.
pub fn get(port: u16, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut wire = Wire::to(port);
    wire.send(request.as_bytes());
    wire.rest()
}

/// One `GET` by curl(1), as a person would ask: the status, 0 if nobody answers, and the body.
///
/// # Panics
/// If curl cannot be run.
pub fn curl(port: u16, path: &str) -> (u16, String) {
    let url = format!("http://127.0.0.1:{port}{path}");
    let limit = DEADLINE.as_secs().to_string();
    let mut command = Command::new("curl");
    command.args(["--silent", "--globoff", "--write-out", "\n%{http_code}", "--max-time", &limit]);
    let output = command.arg(url).output().expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let (body, status) = text.rsplit_once('\n').expect("curl writes the status");
    (status.parse().unwrap_or(0), body.to_owned())
}
