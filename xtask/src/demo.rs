//! `cargo xtask demo`: four unmodified programs that call each other, traced by their process ids.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program of the demo; ended with the value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the demo with the agent at `remora`.
pub(crate) fn run(root: &Path, remora: &Path) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("remora-demo-{}", std::process::id()));
    std::fs::create_dir(&directory).context("cannot create a temporary directory")?;
    let result = show(root, remora, &directory);
    std::fs::remove_dir_all(&directory).context("cannot remove the temporary directory")?;
    result
}

fn show(root: &Path, remora: &Path, directory: &Path) -> Result<()> {
    let (stock, stock_port) = service(root, "stock", &[])?;
    let (prices, prices_port) = service(root, "prices", &[stock_port])?;
    let (shop, shop_port) = service(root, "shop", &[stock_port, prices_port])?;
    let (edge, port) = nginx(directory, shop_port)?;
    println!("Four programs run, none of them changed or restarted for this:");
    for (name, program, what) in [
        ("nginx", &edge, "passes everything on to the shop"),
        ("shop", &shop, "Python; asks stock, then prices"),
        ("prices", &prices, "Python; asks stock"),
        ("stock", &stock, "Python"),
    ] {
        println!("  pid {:<7} {name:<7} {what}", program.0.id());
    }
    let pids = [&edge, &shop, &prices, &stock].map(|program| program.0.id().to_string()).join(",");
    println!("\n$ sudo remora run --pid {pids}");
    let mut agent = Command::new(remora)
        .args(["run", "--pid", &pids])
        .stderr(Stdio::piped())
        .spawn()
        .map(Program)
        .with_context(|| format!("cannot start {}", remora.display()))?;
    let stderr = agent.0.stderr.take().context("stderr is a pipe")?;
    let mut log = BufReader::new(stderr).lines();
    let mut ready = false;
    for line in log.by_ref() {
        let line = line?;
        println!("{line}");
        if line.starts_with("remora: ready") {
            ready = true;
            break;
        }
    }
    if !ready {
        bail!("remora could not begin: see above, and `{} doctor`", remora.display());
    }
    println!();
    for path in ["/cart", "/search?q=sucker+fish&token=hunter2", "/fail", "/cart"] {
        let url = format!("http://127.0.0.1:{port}{path}");
        let status = Command::new("curl").args(["-s", "-o", "/dev/null", &url]).status();
        if !status.context("cannot run curl")?.success() {
            bail!("curl {url} failed");
        }
    }
    let pid = agent.0.id().to_string();
    Command::new("kill").args(["-s", "INT", &pid]).status().context("cannot run kill")?;
    for line in log {
        println!("{}", line?);
    }
    if !agent.0.wait()?.success() {
        bail!("remora failed");
    }
    println!(
        "\nEvery line is a span: who called whom was read from the kernel, not from headers. A `?` marks a\n\
         parent that was inferred; all others are proved.\n\
         Trace your own process into your own backend:\n\n  \
         sudo {} run --pid PID --otlp http://localhost:4318     # Jaeger, or any collector\n  \
         sudo {} run --pid PID --zipkin http://localhost:9411   # Zipkin",
        remora.display(),
        remora.display(),
    );
    Ok(())
}

/// A Python service that asks `backends`; its port.
fn service(root: &Path, name: &str, backends: &[u16]) -> Result<(Program, u16)> {
    let mut child = Command::new("python3")
        .arg(root.join("tests/programs/service.py"))
        .arg(name)
        .args(backends.iter().map(u16::to_string))
        .env("OTEL_SERVICE_NAME", name)
        .stdout(Stdio::piped())
        .spawn()
        .map(Program)
        .context("cannot start python3")?;
    let stdout = child.0.stdout.take().context("stdout is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let port = line.trim().parse().with_context(|| format!("the {name} service did not start"))?;
    Ok((child, port))
}

/// An nginx in front of `backend`; its port.
fn nginx(directory: &Path, backend: u16) -> Result<(Program, u16)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let at = directory.display();
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/1; proxy_temp_path {at}/2;\n\
         fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n\
         server {{ listen 127.0.0.1:{port}; location / {{\n\
         proxy_pass http://127.0.0.1:{backend}; }} }} }}\n"
    );
    let file: PathBuf = directory.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut child = Command::new("nginx");
    child.arg("-e").arg(directory.join("log")).arg("-c").arg(&file);
    let mut child = child.spawn().map(Program).context("cannot start nginx")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = child.0.try_wait()? {
            bail!("nginx ended: {status}");
        }
        if Instant::now() > deadline {
            bail!("nginx does not listen");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok((child, port))
}
