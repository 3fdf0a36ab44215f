//! A backend that misbehaves as it is told: takes OTLP over gRPC and HTTP, and Zipkin's posts, on one
//! port, keeps what came and answers by a script.

mod answer;
mod http1;
mod http2;
mod spans;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio_rustls::TlsAcceptor;

pub use answer::Answer;

use crate::certificates::Pair;
use crate::program::free_port;
use crate::until;

/// A request that came in whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path that it was posted to.
    pub path: String,
    /// Its headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Trace and span id of each span; empty if it was compressed.
    pub ids: Vec<String>,
    /// The body as it came.
    pub body: Vec<u8>,
    /// Whether the sink took the spans, which the sender may not have heard of.
    pub taken: bool,
}

impl Received {
    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// What to answer to a request, by its number from 0 on and how many spans it has.
pub type Script = Box<dyn Fn(usize, usize) -> Answer + Send + Sync>;

/// What all connections share.
struct Shared {
    script: Script,
    count: AtomicUsize,
    received: Mutex<Vec<Received>>,
    released: watch::Sender<bool>,
    /// Ends every connection at once.
    reset: Notify,
}

impl Shared {
    /// Takes a request in and says how to answer it.
    fn receive(&self, mut request: Received) -> Answer {
        request.ids = spans::ids(&request);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let answer = (self.script)(number, request.ids.len());
        request.taken = answer.takes();
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        answer
    }

    /// Waits until the test lets held requests go.
    async fn wait_for_release(&self) {
        // The sender lives as long as we do.
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
}

/// A running sink; ended with the value, and with it every connection.
pub struct Sink {
    port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// One without TLS on a port of its own.
    pub fn start(script: impl Fn(usize, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(free_port(), None, Box::new(script))
    }

    /// One on this port.
    pub fn on(port: u16, script: impl Fn(usize, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(port, None, Box::new(script))
    }

    /// One that takes everything, over TLS; only from clients that `clients` has signed, if given.
    pub fn secure(server: &Pair, clients: Option<&Pair>) -> Self {
        let acceptor = server.acceptor(clients);
        Self::listen(free_port(), Some(acceptor), Box::new(|_, _| Answer::Take))
    }

    fn listen(port: u16, tls: Option<TlsAcceptor>, script: Script) -> Self {
        let shared = Arc::new(Shared {
            script,
            count: AtomicUsize::new(0),
            received: Mutex::new(Vec::new()),
            released: watch::Sender::new(false),
            reset: Notify::new(),
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Before the thread, so that whoever has the sink can connect.
        let listener = std::net::TcpListener::bind(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket can be");
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let runtime = runtime.expect("a runtime can be had");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, tls, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every request by now.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ids of all spans that it has taken by now, with repetitions.
    pub fn taken(&self) -> Vec<String> {
        let received = self.received().into_iter();
        received.filter(|request| request.taken).flat_map(|request| request.ids).collect()
    }

    /// Waits until it has had `count` requests.
    pub fn wait_for_requests(&self, count: usize) {
        until("requests to the sink", || (self.received().len() >= count).then_some(()));
    }

    /// Waits until it has taken `count` spans.
    pub fn wait_for_spans(&self, count: usize) {
        until("spans in the sink", || (self.taken().len() >= count).then_some(()));
    }

    /// Answers the requests that were held.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // A sink whose thread has panicked has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("it does not block");
    loop {
        let (stream, _) = listener.accept().await.expect("descriptors are left");
        // Whatever ends a connection here resets it.
        stream.set_zero_linger().expect("a TCP socket");
        tokio::spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let served = async {
        match tls {
            None => {
                let mut start = [0; 4];
                // Peeking waits for the first byte, and a client's first write is longer than this.
                let _ = stream.peek(&mut start).await;
                serve(stream, &start == b"PRI ", &shared).await;
            }
            // A client that does not trust us goes away: that is its right.
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, is_http2, &shared).await;
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = shared.reset.notified() => {}
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_http2: bool,
    shared: &Arc<Shared>,
) {
    if is_http2 {
        http2::serve(stream, shared).await;
    } else {
        http1::serve(stream, shared).await;
    }
}
