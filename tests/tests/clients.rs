//! Clients as their packages bring them: their spans are what they and their server count.

use std::process::Command;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::program::{Program, listening, own_port};
use remora_tests::servers::{self, Site, built, installed, sources};
use remora_tests::spans::{CLIENT, Span, check_honest};
use remora_tests::{Scratch, is_root, until};

/// How many requests a client makes.
const COUNT: usize = 60;

/// nginx that answers everything with six bytes, and logs.
struct Server {
    scratch: Scratch,
    port: u16,
    _nginx: Program,
}

impl Server {
    fn start() -> Option<Self> {
        let scratch = Scratch::new();
        let port = own_port();
        let log = scratch.file("access.log");
        let http = "log_format oracle '$request_method $request_uri $status $body_bytes_sent \
                    $content_length|$remote_port';\n";
        let server = format!(
            "access_log {} oracle; location / {{ return 200 \"small\\n\"; }} \
             location /10 {{ return 404; }}",
            log.display()
        );
        let site = Site { scratch: &scratch, port, inner_port: 0 };
        let Some(mut nginx) = servers::nginx(&site, &server, http) else {
            println!("skipped: needs nginx (cargo xtask setup)");
            return None;
        };
        let nginx = Program::logged(&mut nginx, &scratch.file("output"));
        listening(port);
        Some(Self { scratch, port, _nginx: nginx })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has logged, in the order in which it answered: at least `count` lines, of which the
    /// last may come after its client has gone.
    fn lines(&self, count: usize) -> Vec<String> {
        until("nginx's log", || {
            let text = std::fs::read_to_string(self.scratch.file("access.log")).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Launches a client with an agent; what came of it, and what it printed with its exit code.
    fn watch(&self, client: &[String], options: &[&str]) -> (Ended, String) {
        let file = self.scratch.file("spans.jsonl");
        let mut command = Command::new(binary());
        command.args(["exec", "--stats"]).args(options).arg("--file").arg(&file).arg("--");
        command.args(shell(client));
        let mut ended = Agent::start(&mut command).end();
        ended.spans = remora_tests::spans::read(&file);
        check_honest(&ended.spans);
        assert_eq!(ended.code, Some(0), "{:?}", ended.log);
        assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
        let stdout = std::mem::take(&mut ended.stdout);
        (ended, stdout)
    }
}

/// A command line that also prints its exit code.
fn shell(client: &[String]) -> Vec<String> {
    let tell = "\"$@\"; echo \"exit $?\"";
    let mut line: Vec<String> = ["sh", "-c", tell, "sh"].map(str::to_owned).into();
    line.extend_from_slice(client);
    line
}

/// As nginx logs it. What a client sends after it has the answer, since this nginx does not wait for
/// bodies, may come too late to be told of.
fn line(span: &Span, logged: &str) -> String {
    let number = |key: &str| span.int(key).map_or("-".to_owned(), |number| number.to_string());
    let sent = match span.int("http.request.body.size") {
        Some(0) if span.text("http.request.method") == "GET" => "-".to_owned(),
        None => logged.rsplit(' ').next().unwrap_or_default().to_owned(),
        Some(size) => size.to_string(),
    };
    format!(
        "{} {} {} {} {sent}",
        span.text("http.request.method"),
        span.path(),
        number("http.response.status_code"),
        number("http.response.body.size"),
    )
}

/// A client that is given the URL and the count.
fn check(name: &str, service: &str, client: Option<Vec<String>>) {
    if !is_root() {
        return;
    }
    let Some(mut client) = client else {
        println!("skipped: needs {name} (cargo xtask setup)");
        return;
    };
    let Some(server) = Server::start() else { return };
    client.extend([server.url(), COUNT.to_string()]);
    let mut alone = Command::new("sh");
    let alone = alone.args(&shell(&client)[1..]).output().expect("sh(1) is there");
    assert_eq!(server.lines(COUNT).len(), COUNT, "{name}: {alone:?}");
    let (ended, printed) = server.watch(&client, &[]);
    assert_eq!(printed, String::from_utf8_lossy(&alone.stdout), "{name}: it prints something else");
    let told: Vec<&Span> = ended.spans.iter().filter(|span| span.kind == CLIENT).collect();
    assert_eq!(told.len(), ended.spans.len(), "{:#?}", ended.spans);
    assert!(told.iter().all(|span| span.service == service), "{:#?}", told[0]);
    let logged: Vec<String> = server.lines(2 * COUNT)[COUNT..]
        .iter()
        .map(|line| line.split('|').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(told.len(), logged.len(), "{name}: {:?}", ended.log);
    let told: Vec<String> =
        told.iter().zip(&logged).map(|(span, logged)| line(span, logged)).collect();
    assert_eq!(told, logged, "{name}: {:?}", ended.log);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn program(path: Option<std::path::PathBuf>, more: &[&str]) -> Option<Vec<String>> {
    let mut line = vec![path?.display().to_string()];
    line.extend(words(more));
    Some(line)
}

fn source(name: &str) -> String {
    sources().join(name).display().to_string()
}

#[test]
fn python_http_client() {
    let script = source("http_client.py");
    check("python3", "http_client", program(installed("python3"), &[&script, "client"]));
}

#[test]
fn python_requests() {
    let script = source("http_client.py");
    let python = program(built("python/bin/python"), &[&script, "requests"]);
    check("requests", "http_client", python);
}

#[test]
fn node_http() {
    check("node", "client", program(installed("node"), &[&source("client.js")]));
}

#[test]
fn go_net_http() {
    check("the Go client", "go-client", program(built("go-client"), &[]));
}

#[test]
fn java_http_client() {
    let script = source("Client.java");
    let flags = ["-XX:TieredStopAtLevel=1", &script];
    check("a JDK", "Client", program(servers::jdks().pop(), &flags));
}

#[test]
fn curl_and_its_own_counts() {
    if !is_root() {
        return;
    }
    let Some(server) = Server::start() else { return };
    let url = format!("{}/[0-{}]", server.url(), COUNT - 1);
    let form = "%{method} %{url_effective} %{http_code} %{size_download}\\n";
    let client = words(&["curl", "-s", "-o", "/dev/null", "-w", form, &url]);
    let (ended, printed) = server.watch(&client, &[]);
    let told: Vec<String> = ended
        .spans
        .iter()
        .map(|span| {
            let number = |key| span.int(key).unwrap_or(-1);
            let status = number("http.response.status_code");
            format!(
                "{} {} {status} {}\n",
                span.text("http.request.method"),
                span.text("url.full"),
                number("http.response.body.size")
            )
        })
        .collect();
    assert_eq!(told.len(), COUNT);
    assert_eq!(told.concat() + "exit 0\n", printed, "{:?}", ended.log);
}

#[test]
fn wrk_and_its_own_count() {
    if !is_root() {
        return;
    }
    let Some(wrk) = installed("wrk") else {
        println!("skipped: needs wrk (cargo xtask setup)");
        return;
    };
    let Some(server) = Server::start() else { return };
    let (wrk, url) = (wrk.display().to_string(), server.url() + "/wrk");
    let client = words(&[&wrk, "-t", "2", "-c", "8", "-d", "1s", &url]);
    let (ended, printed) = server.watch(&client, &["--ring-mib", "64"]);
    let count = printed.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (count, _) = count.unwrap_or_else(|| panic!("no count in {printed}"));
    let count: usize = count.parse().expect("a number");
    let (whole, cut): (Vec<&Span>, Vec<&Span>) =
        ended.spans.iter().partition(|span| span.text("error.type").is_empty());
    // It counts answers that it has read, and then leaves without those that are under way.
    assert_eq!(whole.len(), count, "{:?}", ended.log);
    assert!(cut.len() <= 8, "{cut:#?}");
    assert!(whole.iter().all(|span| span.int("http.response.status_code") == Some(200)));
    let answered = server.lines(count).iter().filter(|line| line.contains(" 200 6 ")).count();
    assert!((count..=count + 8).contains(&answered), "{answered} {count}");
}
