//! Traffic that is made up: which records a request makes, by whom it is served.

use agent_common::socket_flags;

use super::tape::Tape;
use super::writer::{Ends, Task, Way, Writer};

/// Kept-alive connections, as many as the load generator of the other benchmarks uses.
const CONNECTIONS: usize = 64;
/// As many as a server may have.
const MANY_CONNECTIONS: usize = 10_000;
/// Between two requests: a busy nginx.
const REQUEST_NS: u64 = 8_000;
/// Requests that a proxy takes in before it looks at any answer.
const TURN: usize = 16;
/// Connections that are closed before the kernel is done with the first of them.
const CLOSING: usize = 16;

const SERVER: u32 = 4711;
const BACKEND: u32 = 4712;

/// A kind of traffic.
#[derive(Clone, Copy)]
pub(crate) enum Recording {
    /// As nginx answers with a small file: one read, a head by `writev`, a body by `sendfile`.
    Nginx,
    /// As most others answer: one read, head and body in one write.
    OneWrite,
    /// As `OneWrite`, all over one connection: everything about it is in one drain.
    OneConnection,
    /// As `OneWrite`, over very many connections.
    ManyConnections,
    /// nginx asks a Go program for each answer, over connections that are kept: three spans a request.
    Proxied,
    /// As `Nginx`, each request over a connection of its own, which nginx closes.
    Fresh,
}

impl Recording {
    /// Every kind.
    pub(crate) const ALL: [Self; 6] = [
        Self::Nginx,
        Self::OneWrite,
        Self::OneConnection,
        Self::ManyConnections,
        Self::Proxied,
        Self::Fresh,
    ];

    /// What the results call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::OneWrite => "one write",
            Self::OneConnection => "one connection",
            Self::ManyConnections => "10,000 connections",
            Self::Proxied => "nginx to Go",
            Self::Fresh => "a connection a request",
        }
    }

    /// How many are kept alive.
    fn connections(self) -> usize {
        match self {
            Self::Nginx | Self::OneWrite | Self::Proxied => CONNECTIONS,
            Self::OneConnection => 1,
            Self::ManyConnections => MANY_CONNECTIONS,
            Self::Fresh => 0,
        }
    }

    /// Makes as many requests as make so many spans, or nearly.
    pub(crate) fn make(self, spans: usize) -> Tape {
        let mut writer = Writer::new();
        writer.process(SERVER, "nginx", !matches!(self, Self::Proxied));
        for client in 0..self.connections() {
            writer.connect(accepted(client));
        }
        match self {
            Self::Proxied => proxied(&mut writer, spans / 3),
            Self::Fresh => fresh(&mut writer, spans),
            _ => kept(&mut writer, self, spans),
        }
        let made = if let Self::Proxied = self { spans / 3 * 3 } else { spans };
        writer.finish(made as u64)
    }
}

/// A client's connection.
fn accepted(client: usize) -> Ends {
    // As many ports as there are for clients; used again when others have been.
    let remote_port = 20_000 + (client % 40_000) as u16;
    Ends { tgid: SERVER, local_port: 80, remote_port, role: socket_flags::ACCEPTED }
}

fn kept(writer: &mut Writer, recording: Recording, requests: usize) {
    let thread = Task::thread(SERVER);
    for number in 0..requests {
        let connection = number % recording.connections();
        let request = request(number, connection);
        let answer = answer("keep-alive");
        writer.wait(REQUEST_NS);
        writer.operation(connection, Way::Inbound, thread, request.as_bytes(), request.len());
        writer.wait(4_000);
        if let Recording::Nginx = recording {
            static_file(writer, connection, &answer);
        } else {
            let whole = with_body(&answer);
            writer.operation(connection, Way::Outbound, thread, &whole, whole.len());
        }
    }
}

fn fresh(writer: &mut Writer, requests: usize) {
    for number in 0..requests {
        let request = request(number, number);
        writer.wait(2 * REQUEST_NS);
        let connection = writer.connect(accepted(number));
        let thread = Task::thread(SERVER);
        writer.operation(connection, Way::Inbound, thread, request.as_bytes(), request.len());
        writer.wait(6_000);
        static_file(writer, connection, &answer("close"));
        writer.wait(2_500);
        writer.shut_down(connection);
        if let Some(done) = connection.checked_sub(CLOSING) {
            writer.close(done);
        }
    }
}

fn static_file(writer: &mut Writer, connection: usize, head: &str) {
    let thread = Task::thread(SERVER);
    writer.operation(connection, Way::Outbound, thread, head.as_bytes(), head.len());
    writer.wait(1_500);
    // `sendfile`: the bytes are in no memory of the process.
    writer.operation(connection, Way::Outbound, thread, &[], 200);
}

fn proxied(writer: &mut Writer, requests: usize) {
    writer.process(BACKEND, "backend", true);
    let links: Vec<(usize, usize)> = (0..CONNECTIONS)
        .map(|link| {
            let (server, client) = (8080, 60_000 + link as u16);
            let role = socket_flags::CONNECTED;
            let near = Ends { tgid: SERVER, local_port: client, remote_port: server, role };
            let role = socket_flags::ACCEPTED;
            let far = Ends { tgid: BACKEND, local_port: server, remote_port: client, role };
            (writer.connect(near), writer.connect(far))
        })
        .collect();
    let thread = Task::thread(SERVER);
    let numbers: Vec<usize> = (0..requests).collect();
    for turn in numbers.chunks(TURN) {
        // nginx takes the link that was used last, and gives each back when it has read the answer.
        let turn = || turn.iter().zip(&links).map(|(number, link)| (*number, *link));
        for (number, (near, _)) in turn() {
            let client = number % CONNECTIONS;
            let asked = request(number, client);
            writer.wait(REQUEST_NS);
            writer.operation(client, Way::Inbound, thread, asked.as_bytes(), asked.len());
            writer.wait(7_000);
            let Some(task) = writer.for_request_of(client) else { continue };
            let asks = forwarded(number, client);
            writer.operation(near, Way::Outbound, task, asks.as_bytes(), asks.len());
        }
        for (number, (_, far)) in turn() {
            let asked = forwarded(number, number % CONNECTIONS);
            let whole = with_body(GO_ANSWER);
            // Each connection has its goroutine.
            let task = Task::goroutine(BACKEND, 100 + far as u64);
            writer.wait(5_000);
            writer.operation(far, Way::Inbound, task, asked.as_bytes(), asked.len());
            writer.wait(9_000);
            writer.operation(far, Way::Outbound, task, &whole, whole.len());
        }
        for (number, (near, _)) in turn() {
            let whole = with_body(GO_ANSWER);
            writer.wait(2_000);
            writer.operation(near, Way::Inbound, thread, &whole, whole.len());
            writer.wait(6_000);
            let whole = with_body(&answer("keep-alive"));
            let client = number % CONNECTIONS;
            writer.operation(client, Way::Outbound, thread, &whole, whole.len());
        }
    }
}

/// 100 to 200 bytes; another client on each connection, another resource each time.
fn request(number: usize, connection: usize) -> String {
    asking("shop.example.com", number, connection)
}

/// The same as nginx passes it on.
fn forwarded(number: usize, connection: usize) -> String {
    asking("backend", number, connection)
}

fn asking(host: &str, number: usize, connection: usize) -> String {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36".get(connection % 50..);
    format!(
        "GET /items/{number}/prices?currency=EUR&page={} HTTP/1.1\r\nHost: {host}\r\n\
         User-Agent: {}\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n",
        number % 7,
        agent.unwrap_or_default()
    )
}

fn answer(connection: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 02 Feb 2026 10:00:00 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 200\r\n\
         Last-Modified: Sun, 01 Feb 2026 10:00:00 GMT\r\nConnection: {connection}\r\n\
         ETag: \"697f23e0-c8\"\r\nAccept-Ranges: bytes\r\n\r\n"
    )
}

/// As `net/http` answers.
const GO_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 200\r\nContent-Type: application/octet-stream\r\n\
    Date: Mon, 02 Feb 2026 10:00:00 GMT\r\n\r\n";

fn with_body(head: &str) -> Vec<u8> {
    let mut whole = head.as_bytes().to_vec();
    whole.resize(head.len() + 200, b'x');
    whole
}
