//! Servers as their packages bring them, as a table: another one is another row.
//!
//! Each is started on a free port in a scratch directory and answers what `talk` asks. A row says how
//! to start it, where it answers otherwise, and nothing about remora.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::Scratch;
use crate::program::scripts;

/// Where one run of a server lives.
pub struct Site<'a> {
    /// Its directory.
    pub scratch: &'a Scratch,
    /// The port that clients are to be given.
    pub port: u16,
    /// A port for what is behind it.
    pub inner_port: u16,
}

/// A server.
pub struct Row {
    /// What it is called here.
    pub name: &'static str,
    /// `service.name` of the process that clients talk to.
    pub service: &'static str,
    /// The programs to start, the one that clients talk to last; `None` if one is not installed.
    pub start: fn(&Site<'_>) -> Option<Vec<Command>>,
    /// Steps that it does not understand.
    pub lacks: &'static [&'static str],
    /// Steps that it answers with another status.
    pub other: &'static [(&'static str, u16)],
    /// The signal that ends it.
    pub signal: &'static str,
    /// What becomes of each request behind it.
    pub behind: Behind,
}

/// The Unix socket of what is behind a server, where it has one.
pub const INNER_SOCKET: &str = "inner.sock";

/// What is behind a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing that speaks HTTP.
    Nothing,
    /// An HTTP server that is asked the same.
    Server,
}

/// Static files understand no request with a body and make no chunks.
const STATIC: &[&str] = &["echo", "chunked", "chunks", "stream", "flood", "upload", "none"];

const fn direct(
    name: &'static str,
    service: &'static str,
    start: fn(&Site<'_>) -> Option<Vec<Command>>,
) -> Row {
    Row { name, service, start, lacks: &[], other: &[], signal: "TERM", behind: Behind::Nothing }
}

/// nginx with two workers, on files.
pub const NGINX: Row = Row {
    lacks: STATIC,
    ..direct("nginx", "nginx", |site| {
        let root = files(site).display().to_string();
        let location = format!("root {root}; location = /moved {{ return 302 /hello; }}");
        Some(vec![nginx(site, &location, "")?])
    })
};

/// nginx before a Go server, with kept-alive connections to it.
pub const NGINX_PROXY: Row = Row {
    behind: Behind::Server,
    ..direct("nginx-proxy", "nginx", |site| {
        let location = "location / { proxy_pass http://behind; proxy_http_version 1.1; \
                        proxy_set_header Connection \"\"; }";
        let upstream =
            format!("upstream behind {{ server 127.0.0.1:{}; keepalive 8; }}", site.inner_port);
        Some(vec![go(site.inner_port)?, nginx(site, location, &upstream)?])
    })
};

/// PHP-FPM behind nginx.
pub const PHP_FPM: Row = direct("php-fpm", "nginx", |site| {
    let fpm = installed_like("php-fpm")?;
    let socket = site.scratch.file(INNER_SOCKET).display().to_string();
    let pool = format!(
        "[global]\nerror_log = /dev/stderr\ndaemonize = no\n[www]\nlisten = {socket}\n\
         user = root\ngroup = root\npm = static\npm.max_children = 2\n"
    );
    let mut php = Command::new(fpm);
    php.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]);
    php.arg(site.scratch.write("fpm.conf", &pool));
    let script = sources().join("php/index.php").display().to_string();
    let location = format!(
        "location / {{ fastcgi_pass unix:{socket}; fastcgi_buffering off; \
         fastcgi_param SCRIPT_FILENAME {script}; fastcgi_param REQUEST_URI $request_uri; \
         fastcgi_param REQUEST_METHOD $request_method; \
         fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length; \
         fastcgi_param HTTP_IF_NONE_MATCH $http_if_none_match; }}"
    );
    Some(vec![php, nginx(site, &location, "")?])
});

/// Apache with its event workers, on files.
pub const APACHE: Row = Row {
    lacks: STATIC,
    ..direct("apache", "apache2", |site| {
        let root = files(site).display().to_string();
        Some(vec![apache(site, &format!("DocumentRoot {root}\nRedirect 302 /moved /hello\n"))?])
    })
};

/// lighttpd on files. How it ends by TERM depends on whether a connection is open.
pub const LIGHTTPD: Row = Row {
    lacks: STATIC,
    signal: "INT",
    ..direct("lighttpd", "lighttpd", |site| {
        let (root, port) = (files(site).display().to_string(), site.port);
        let text = format!(
            "server.document-root = \"{root}\"\nserver.port = {port}\n\
             server.bind = \"127.0.0.1\"\nserver.modules = (\"mod_redirect\")\n\
             mimetype.assign = (\"\" => \"text/plain\")\n\
             url.redirect = (\"^/moved\" => \"/hello\")\nurl.redirect-code = 302\n"
        );
        let mut command = Command::new(installed("lighttpd")?);
        command.args(["-D", "-f"]).arg(site.scratch.write("lighttpd.conf", &text));
        Some(vec![command])
    })
};

/// HAProxy with two threads, before a Go server.
pub const HAPROXY: Row = Row {
    behind: Behind::Server,
    ..direct("haproxy", "haproxy", |site| {
        let text = format!(
            "global\n nbthread 2\ndefaults\n mode http\n timeout connect 20s\n\
             timeout client 20s\n timeout server 20s\n\
             listen front\n bind 127.0.0.1:{}\n server behind 127.0.0.1:{}\n",
            site.port, site.inner_port
        );
        Some(vec![go(site.inner_port)?, haproxy(site, &text)?])
    })
};

/// `python3 -m http.server`: one request a connection, one thread each.
pub const HTTP_SERVER: Row = Row {
    lacks: &[
        "echo",
        "chunked",
        "chunks",
        "stream",
        "flood",
        "upload",
        "none",
        "moved",
        // It speaks HTTP/1.0 and closes after each answer.
        "pipelined",
    ],
    ..direct("http.server", "http.server", |site| {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        command.arg(files(site)).arg(site.port.to_string());
        Some(vec![command])
    })
};

/// Gunicorn's plain workers: no keep-alive.
pub const GUNICORN_SYNC: Row = Row {
    lacks: &["pipelined"],
    ..direct("gunicorn-sync", "gunicorn", |site| {
        Some(vec![gunicorn(site, &["--worker-class", "sync", "--workers", "2"])?])
    })
};

/// Gunicorn's threaded workers: one thread polls, others answer. What was read beyond a request is
/// left lying.
pub const GUNICORN_THREADS: Row = Row {
    lacks: &["pipelined"],
    ..direct("gunicorn-gthread", "gunicorn", |site| {
        Some(vec![gunicorn(site, &["--worker-class", "gthread", "--threads", "4"])?])
    })
};

/// uvicorn: an event loop.
pub const UVICORN: Row = direct("uvicorn", "uvicorn", |site| {
    let mut command = Command::new(built("python/bin/uvicorn")?);
    command.args(["--app-dir"]).arg(sources()).args(["--port", &site.port.to_string(), "asgi:app"]);
    Some(vec![command])
});

/// Node's http.
pub const NODE: Row = direct("node", "servers", |site| {
    let mut command = Command::new(installed("node")?);
    command.arg(sources().join("server.js")).arg(site.port.to_string());
    Some(vec![command])
});

/// Go's net/http.
pub const GO: Row = direct("go", "go-server", |site| Some(vec![go(site.port)?]));

/// axum on hyper and Tokio.
pub const AXUM: Row = direct("axum", "axum-server", |site| {
    let mut command = Command::new(built("axum/release/axum-server")?);
    command.arg(site.port.to_string());
    Some(vec![command])
});

/// Puma: a reactor and threads.
pub const PUMA: Row = direct("puma", "puma", |site| {
    let mut command = Command::new(installed("puma")?);
    let bind = format!("tcp://127.0.0.1:{}", site.port);
    command.args(["--bind", &bind, "--threads", "4:4", "--environment", "production"]);
    command.arg(sources().join("ruby/config.ru")).current_dir(site.scratch.path());
    Some(vec![command])
});

/// The JDK's own server, on the oldest JDK of this host.
pub const JAVA_OLDEST: Row =
    direct("java-oldest", "Server", |site| Some(vec![java(jdks().first()?, site)]));

/// The JDK's own server, on the newest JDK of this host.
pub const JAVA_NEWEST: Row =
    direct("java-newest", "Server", |site| Some(vec![java(jdks().last()?, site)]));

fn java(java: &Path, site: &Site<'_>) -> Command {
    let mut command = Command::new(java);
    command.arg("-XX:TieredStopAtLevel=1").arg(sources().join("Server.java"));
    command.arg(site.port.to_string());
    command
}

/// The `java` of every JDK of this host, oldest first.
pub fn jdks() -> Vec<PathBuf> {
    let version = |home: &Path| {
        let text = std::fs::read_to_string(home.join("release")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
        line.split(['.', '"']).next()?.parse::<u32>().ok()
    };
    let mut found = Vec::new();
    for place in ["/usr/lib/jvm", "/opt"] {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            // A source file is run, which needs a compiler.
            if let Ok(home) = entry.path().canonicalize()
                && home.join("bin/javac").exists()
                && let Some(version) = version(&home)
            {
                found.push((version, home.join("bin/java")));
            }
        }
    }
    found.sort();
    found.dedup();
    found.into_iter().map(|(_, java)| java).collect()
}

/// A program of the table as it is started: nginx in the foreground with master and workers.
pub fn nginx(site: &Site<'_>, server: &str, http: &str) -> Option<Command> {
    let (at, port) = (site.scratch.path().display(), site.port);
    let text = format!(
        "daemon off; user root; worker_processes 2; pid {at}/nginx.pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log off; default_type text/plain;\n\
         client_body_temp_path {at}/1; proxy_temp_path {at}/2; fastcgi_temp_path {at}/3;\n\
         uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n{http}\n\
         server {{ listen 127.0.0.1:{port}; {server} }} }}\n"
    );
    let mut command = Command::new(installed("nginx")?);
    command.args(["-e", "stderr", "-c"]).arg(site.scratch.write("nginx.conf", &text));
    Some(command)
}

/// Apache in the foreground with threads that are handed connections.
pub fn apache(site: &Site<'_>, more: &str) -> Option<Command> {
    let (at, port) = (site.scratch.path().display(), site.port);
    let modules = Path::new("/usr/lib/apache2/modules");
    let text = format!(
        "ServerRoot {at}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {at}/pid\n\
         ErrorLog /dev/stderr\nLogLevel error\nServerTokens Prod\nDefaultRuntimeDir {at}\n\
         Mutex file:{at}\nLoadModule mpm_event_module {0}/mod_mpm_event.so\n\
         LoadModule authz_core_module {0}/mod_authz_core.so\n\
         LoadModule alias_module {0}/mod_alias.so\n\
         StartServers 2\nMinSpareThreads 8\nThreadsPerChild 8\nMaxRequestWorkers 16\n\
         FileETag None\n{more}",
        modules.display()
    );
    let mut command = Command::new(installed("apache2")?);
    command.args(["-D", "FOREGROUND", "-f"]).arg(site.scratch.write("apache.conf", &text));
    Some(command)
}

/// HAProxy in the foreground.
pub fn haproxy(site: &Site<'_>, text: &str) -> Option<Command> {
    let mut command = Command::new(installed("haproxy")?);
    command.args(["-db", "-f"]).arg(site.scratch.write("haproxy.cfg", text));
    Some(command)
}

/// The Go server on a port.
pub fn go(port: u16) -> Option<Command> {
    let mut command = Command::new(built("go-server")?);
    command.arg(port.to_string());
    Some(command)
}

fn gunicorn(site: &Site<'_>, more: &[&str]) -> Option<Command> {
    let mut command = Command::new(built("python/bin/gunicorn")?);
    command.args(["--bind", &format!("127.0.0.1:{}", site.port), "--chdir"]).arg(sources());
    command.args(["--worker-tmp-dir"]).arg(site.scratch.path()).args(more).arg("flask_app:app");
    Some(command)
}

/// The sources of the table's programs.
pub fn sources() -> PathBuf {
    scripts().join("servers")
}

/// Files for the servers that serve files.
fn files(site: &Site<'_>) -> PathBuf {
    let root = site.scratch.file("www");
    if std::fs::create_dir(&root).is_ok() {
        for (name, content) in [("hello", b"hello\n".to_vec()), ("big", vec![0; 1 << 20])] {
            let mut file = std::fs::File::create(root.join(name)).expect("the directory is ours");
            file.write_all(&content).expect("the disk has room");
            // Servers tell it, and two runs are compared.
            let then = UNIX_EPOCH + Duration::from_secs(1 << 30);
            file.set_modified(then).expect("the file is ours");
        }
    }
    root
}

/// A program on the path or where Debian keeps servers.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place| place.join(name)).find(|program| program.is_file())
}

/// A program whose name begins like this and ends with a version.
fn installed_like(name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir("/usr/sbin").ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.pop()
}

/// A program that `cargo xtask setup` has built or fetched.
pub fn built(path: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    Some(target.join("programs").join(path)).filter(|program| program.exists())
}

/// CPython of a version that set-up has fetched.
pub fn python(version: &str) -> Option<PathBuf> {
    built(&format!("pythons/{version}/bin/python{version}"))
}
