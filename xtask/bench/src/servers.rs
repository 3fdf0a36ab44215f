//! The servers under load: how each is built and started on the first CPU, and what the agent may
//! cost it. All answer with 200 bytes.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::tree;
use crate::sys;

/// The CPU of the servers.
const CPU: usize = 0;
/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of server and its targets.
pub(crate) struct Kind {
    /// What `--only` calls it.
    pub(crate) key: &'static str,
    /// What a table calls it.
    pub(crate) name: &'static str,
    /// Server CPU per request with ÷ without, at most.
    pub(crate) cpu: Option<f64>,
    /// Throughput with ÷ without at saturation, at least.
    pub(crate) throughput: f64,
    /// Spans of one request.
    pub(crate) spans: u64,
    start: fn(&Workshop<'_>) -> Result<Server>,
}

/// Every kind.
pub(crate) const KINDS: [Kind; 6] = [
    Kind {
        key: "nginx",
        name: "nginx",
        cpu: Some(1.08),
        throughput: 0.82,
        spans: 1,
        start: nginx_static,
    },
    Kind { key: "go", name: "Go", cpu: Some(1.10), throughput: 0.82, spans: 1, start: go },
    Kind { key: "node", name: "Node", cpu: Some(1.06), throughput: 0.88, spans: 1, start: node },
    Kind { key: "java", name: "Java", cpu: Some(1.08), throughput: 0.88, spans: 1, start: java },
    Kind {
        key: "python",
        name: "Python",
        cpu: Some(1.02),
        throughput: 0.96,
        spans: 1,
        start: gunicorn,
    },
    // The proxy's own span, its call, and the span of whom it called.
    Kind {
        key: "proxy", name: "nginx → Go", cpu: None, throughput: 0.82, spans: 3, start: proxy
    },
];

/// Running processes; ended with the value.
pub(crate) struct Server {
    processes: Vec<Child>,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Server {
    /// All its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().flat_map(|process| tree(process.id())).collect()
    }

    /// The process that answers, where one does.
    pub(crate) fn worker(&self) -> Option<u32> {
        self.pids().last().copied()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let all = self.pids();
        for process in &self.processes {
            // Ended already is as good.
            let _ = sys::terminate(process);
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        for process in &mut self.processes {
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                sys::rest(Duration::from_millis(5));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        // A master that was killed leaves its workers.
        let is_alive = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
        for pid in all.iter().filter(is_alive) {
            let _ = sys::kill(*pid);
        }
    }
}

/// Where servers are made.
pub(crate) struct Workshop<'a> {
    /// Their sources.
    pub(crate) programs: &'a Path,
    /// What is built, kept for the next time.
    pub(crate) cache: &'a Path,
    /// What is not kept.
    pub(crate) scratch: &'a Path,
}

impl Kind {
    /// Builds what is missing and starts it.
    pub(crate) fn start(&self, workshop: &Workshop<'_>) -> Result<Server> {
        (self.start)(workshop).with_context(|| format!("cannot start {}", self.name))
    }
}

/// An nginx that answers from a file.
pub(crate) fn nginx_static(workshop: &Workshop<'_>) -> Result<Server> {
    let directory = workshop.scratch.display();
    std::fs::write(workshop.scratch.join("bench"), "x".repeat(200))?;
    nginx(workshop, "", &format!("root {directory};"))
}

fn proxy(workshop: &Workshop<'_>) -> Result<Server> {
    let mut backend = go(workshop)?;
    let upstream = format!(
        "upstream backend {{ server 127.0.0.1:{}; keepalive 64; keepalive_requests 1000000000; }}",
        backend.port
    );
    let location = "location / { proxy_pass http://backend; proxy_http_version 1.1; \
        proxy_set_header Connection ''; }";
    let mut front = nginx(workshop, &upstream, location)?;
    front.processes.append(&mut backend.processes);
    Ok(front)
}

/// One process, which ends with this one; nothing ends its connections and it writes no log.
fn nginx(workshop: &Workshop<'_>, http: &str, server: &str) -> Result<Server> {
    let port = free_port()?;
    let at = workshop.scratch.display();
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/log;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;\n\
         client_body_temp_path {at}/1; proxy_temp_path {at}/2; fastcgi_temp_path {at}/3;\n\
         uwsgi_temp_path {at}/4; scgi_temp_path {at}/5; keepalive_requests 1000000000;\n\
         {http}\nserver {{ listen 127.0.0.1:{port} backlog=4096; {server} }} }}\n"
    );
    let file = workshop.scratch.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(workshop.scratch.join("log")).arg("-c").arg(&file);
    started(&mut command, port)
}

fn go(workshop: &Workshop<'_>) -> Result<Server> {
    let port = free_port()?;
    started(&mut go_server(workshop, "go", port)?, port)
}

fn node(workshop: &Workshop<'_>) -> Result<Server> {
    let port = free_port()?;
    started(&mut node_server(workshop, port)?, port)
}

fn java(workshop: &Workshop<'_>) -> Result<Server> {
    let port = free_port()?;
    started(&mut java_server(workshop, port)?, port)
}

fn gunicorn(workshop: &Workshop<'_>) -> Result<Server> {
    let home = workshop.cache.join("python");
    if !home.join("bin/gunicorn").is_file() {
        environment(&home, &["gunicorn==23.0.0"])?;
    }
    let port = free_port()?;
    started(&mut gunicorn_server(workshop, &home, "app:app", port), port)
}

/// The Go server whose source is there, built.
pub(crate) fn go_server(workshop: &Workshop<'_>, source: &str, port: u16) -> Result<Command> {
    let binary = workshop.cache.join(format!("{}-server", source.replace('/', "-")));
    let known = ["go", "/usr/local/go/bin/go"];
    let go = known.into_iter().find(|go| succeeds(Command::new(go).arg("version")));
    let mut build = Command::new(go.context("needs Go")?);
    build.args(["build", "-o"]).arg(&binary).arg(".").current_dir(workshop.programs.join(source));
    ensure!(build.status()?.success(), "the server does not compile");
    let mut server = Command::new(binary);
    server.arg(port.to_string());
    Ok(server)
}

/// The Node server.
pub(crate) fn node_server(workshop: &Workshop<'_>, port: u16) -> Result<Command> {
    ensure!(succeeds(Command::new("node").arg("--version")), "needs Node");
    let mut server = Command::new("node");
    server.arg(workshop.programs.join("server.js")).arg(port.to_string());
    Ok(server)
}

/// The Java server, compiled.
pub(crate) fn java_server(workshop: &Workshop<'_>, port: u16) -> Result<Command> {
    let classes = workshop.cache.join("java");
    let mut compile = Command::new("javac");
    compile.arg("-d").arg(&classes).arg(workshop.programs.join("java/Server.java"));
    ensure!(succeeds(Command::new("javac").arg("-version")), "needs a JDK");
    ensure!(compile.status()?.success(), "the server does not compile");
    let mut server = Command::new("java");
    // Without it, answers wait for the delayed acknowledgement of their heads.
    server.arg("-Dsun.net.httpserver.nodelay=true").arg("-cp").arg(classes);
    server.arg("Server").arg(port.to_string());
    Ok(server)
}

/// An application in gunicorn, as one worker with threads, since its default worker closes every
/// connection.
pub(crate) fn gunicorn_server(
    workshop: &Workshop<'_>,
    environment: &Path,
    application: &str,
    port: u16,
) -> Command {
    let mut server = Command::new(environment.join("bin/gunicorn"));
    server.args(["--workers", "1", "--worker-class", "gthread", "--threads", "8"]);
    server.args(["--keep-alive", "75", "--log-level", "error", "--bind"]);
    server.arg(format!("127.0.0.1:{port}")).arg(application).current_dir(workshop.programs);
    server.env("PYTHONDONTWRITEBYTECODE", "1");
    server
}

/// A virtual environment of Python's with these packages.
pub(crate) fn environment(home: &Path, packages: &[&str]) -> Result<()> {
    let made = succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(home));
    ensure!(made, "needs Python 3 with venv");
    let mut install = Command::new(home.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
    ensure!(install.status()?.success(), "needs {}", packages.join(", "));
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Starts a server on the servers' CPU and waits until it listens.
pub(crate) fn started(command: &mut Command, port: u16) -> Result<Server> {
    let command = sys::pinned(command, CPU).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    // What it says matters only if it does not start; the pipe must not fill up.
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(std::io::Result::ok) {
            // Nobody listens any more once it has started.
            let _ = send.send(line);
        }
    });
    let mut server = Server { processes: vec![child], port };
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = server.processes.iter_mut().find_map(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            let said: Vec<String> = lines.iter().collect();
            bail!("it ended with {status}: {said:#?}");
        }
        ensure!(Instant::now() < deadline, "it does not listen");
        sys::rest(Duration::from_millis(10));
    }
    Ok(server)
}

/// A directory that is removed with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let name = format!("remora-bench-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over is in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
