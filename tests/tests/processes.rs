//! Which processes are traced: by id, by rule, by launch; across fork, exec, exit and namespaces.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use remora_tests::agent::{Agent, binary};
use remora_tests::program::{Program, free_port, listening, python, scripts, service};
use remora_tests::spans::{CLIENT, SERVER, check_honest};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, copy_program, is_root, until};

fn pid(program: &Program) -> String {
    program.pid().to_string()
}

#[test]
fn only_what_was_selected_is_seen() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (wanted, port) = service("wanted", &[]);
    let (_other, other_port) = service("other", &[]);
    let agent = Agent::run(&scratch, &["--stats", "--pid", &pid(&wanted)]);
    get(other_port, "/other");
    get(port, "/wanted");
    let ended = agent.stop();
    let paths: Vec<_> = ended.spans.iter().map(|span| span.path()).collect();
    assert_eq!(paths, ["/wanted"]);
    assert_eq!(ended.count("remora_events_of_unknown_process_total"), 0);
}

#[test]
fn a_program_that_starts_while_a_rule_matches_is_traced_from_its_first_request() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    // A program of this test's own name.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = String::from_utf8(python.expect("python3 is there").stdout).expect("a path");
    let real = std::fs::canonicalize(python.trim()).expect("it exists");
    let own = scratch.file("matched-program");
    copy_program(&real, &own);
    let agent = Agent::run(&scratch, &["--exe", "matched-*"]);
    let home = real.parent().and_then(|bin| bin.parent()).expect("prefix/bin/python");
    let start = || {
        let mut command = Command::new(&own);
        command.env("PYTHONHOME", home).arg(scripts().join("service.py")).arg("matched");
        let program = Program::start(&mut command);
        let port: u16 = program.line().parse().expect("it prints its port");
        get(port, "/first");
        program
    };
    let (_one, _two) = (start(), start());
    let (_not, port) = service("not", &[]);
    get(port, "/not");
    let ended = agent.stop();
    let paths: Vec<_> = ended.spans.iter().map(|span| span.path()).collect();
    assert_eq!(paths, ["/first", "/first"], "{:?}", ended.log);
    assert_eq!(ended.count("lost"), 0);
}

#[test]
fn a_port_finds_its_listener_before_and_after_the_agent() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (_old, old_port) = service("old", &[]);
    let new_port = free_port();
    let ports = format!("{old_port},{new_port}");
    let agent = Agent::run(&scratch, &["--port", &ports]);
    get(old_port, "/old");
    let (twice, first) = python("twice.py", &[&new_port.to_string()]);
    assert_eq!(first, "first");
    get(new_port, "/new");
    // The same process, another program.
    assert_eq!(twice.line(), "second");
    get(new_port, "/exec");
    let ended = agent.stop();
    let said: Vec<_> = ended
        .spans
        .iter()
        .map(|span| (span.path(), span.int("http.response.status_code")))
        .collect();
    let expected = [("/old", Some(200)), ("/new", Some(201)), ("/exec", Some(202))];
    assert_eq!(said, expected, "{:?}", ended.log);
}

#[test]
fn sockets_that_are_numbered_alike_are_told_apart() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut program = Program::start_told(Command::new("python3").arg(scripts().join("alike.py")));
    assert_eq!(program.line(), "ready");
    let agent = Agent::run(&scratch, &["--pid", &pid(&program)]);
    program.tell("go");
    assert_eq!(program.line(), "done");
    let ended = agent.stop();
    check_honest(&ended.spans);
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    for path in ["/1", "/2", "/3", "/4", "/5", "/6", "/reset", "/7", "/8"] {
        let mut said: Vec<_> = ended
            .spans
            .iter()
            .filter(|span| span.path() == path)
            .map(|span| {
                let status = span.int("http.response.status_code");
                (span.kind, status, span.int("remora.lost"), span.link())
            })
            .collect();
        said.sort();
        let server = (SERVER, Some(200), None, "tcp_seq exact".to_owned());
        let client = (CLIENT, Some(200), None, String::new());
        assert_eq!(said, [server, client], "{path}: {:#?}", ended.spans);
    }
    assert_eq!(ended.spans.len(), 18, "{:#?}", ended.spans);
}

#[test]
fn children_are_followed_if_asked() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = python("forking.py", &[]);
    let port: u16 = port.parse().expect("it prints its port");
    let agent = Agent::run(&scratch, &["--follow", "--pid", &pid(&server)]);
    for number in 0..20 {
        get(port, &format!("/{number}"));
    }
    let ended = agent.stop();
    assert_eq!(ended.of("forking").len(), 20, "{:?}", ended.log);
    let processes: std::collections::BTreeSet<_> =
        ended.spans.iter().map(|span| span.resource["process.pid"].as_i64()).collect();
    assert_eq!(processes.len(), 20, "each child is a process of its own");
    let scratch = Scratch::new();
    let served = scripts().join("service.py").display().to_string();
    let mut command = Command::new("sh");
    command.args(["-c", "python3 \"$1\" child & wait", "sh", &served]);
    let mut shell = Program::start(&mut command);
    let child_port: u16 = shell.line().parse().expect("it prints its port");
    let agent = Agent::run(&scratch, &["--follow", "--pid", &pid(&shell)]);
    get(child_port, "/older");
    let ended = agent.stop();
    assert_eq!(ended.spans.len(), 1, "a child that is older than the agent: {:?}", ended.log);
    let child = ended.spans[0].resource["process.pid"].to_string();
    assert!(Command::new("kill").arg(child).status().expect("kill(1) is there").success());
    assert_eq!(shell.wait(), Some(0));
    let scratch = Scratch::new();
    let agent = Agent::run(&scratch, &["--pid", &pid(&server)]);
    get(port, "/alone");
    let ended = agent.stop();
    assert!(ended.spans.is_empty(), "its children are not asked for: {:#?}", ended.spans);
}

#[test]
fn what_somebody_else_has_written_is_no_closed_connection() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    // A child that is not followed answers, as a CGI script does that writes its own head.
    let answer = "k:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
    let (server, port) = python("raw.py", &["r:\\r\\n\\r\\n", answer, "c"]);
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    let answer = get(port.parse().expect("it prints its port"), "/by-a-child");
    assert!(answer.ends_with("ok"), "{answer}");
    let ended = agent.stop();
    let [span] = ended.spans.as_slice() else { panic!("{:#?}", ended.spans) };
    assert_eq!(span.int("http.response.status_code"), None);
    assert_eq!((span.text("error.type"), span.status), ("", 0), "{span:#?}");
    assert_eq!(span.text("remora.end.reason"), "not_seen");
    assert_eq!(span.int("remora.lost"), Some(1));
}

#[test]
fn a_process_goes_on_when_its_first_thread_has_ended() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let answer = "w:HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok";
    let (server, port) = python("raw.py", &["t", "r:\\r\\n\\r\\n", answer, "c"]);
    let stat = format!("/proc/{}/stat", server.pid());
    until("the first thread's end", || std::fs::read_to_string(&stat).ok()?.find(") Z ").map(drop));
    for how in [["--pid", &pid(&server)], ["--port", &port]] {
        let found = Command::new(binary()).arg("plan").args(how).output().expect("it runs");
        assert!(found.status.success(), "{how:?}: {found:?}");
    }
    let agent = Agent::run(&scratch, &["--port", &port]);
    let answer = get(port.parse().expect("it prints its port"), "/threads");
    assert!(answer.ends_with("ok"), "{answer}");
    let ended = agent.stop();
    let [span] = ended.spans.as_slice() else { panic!("{:#?}", ended.log) };
    assert_eq!((span.path(), span.int("http.response.status_code")), ("/threads", Some(200)));
    let runtime = span.resource.get("process.runtime.name").and_then(|name| name.as_str());
    assert_eq!(runtime, Some("cpython"));
}

#[test]
fn exec_traces_from_the_first_instruction_and_ends_with_the_program() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (_server, port) = service("served", &[]);
    let url = format!("http://127.0.0.1:{port}/launched");
    let file = scratch.file("spans.jsonl");
    let mut command = Command::new(binary());
    command.arg("exec").arg("--file").arg(&file);
    // A shell, so that the program is a child of what was launched.
    command.args(["--", "sh", "-c", &format!("curl -s {url}; exit 3")]);
    let ended = Agent::start(&mut command).end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    assert_eq!(ended.stdout, "served");
    let spans = remora_tests::spans::read(&file);
    assert_eq!(spans.len(), 1, "{:?}", ended.log);
    assert_eq!((spans[0].kind, spans[0].service.as_str()), (CLIENT, "curl"));
    assert_eq!(spans[0].text("url.full"), url);
    assert_eq!(ended.count("spans"), 1);
}

/// Blocked and ignored signals, limits, descriptors, environment: a program that is traced from its start
/// starts with what it would have without.
#[test]
fn exec_gives_the_program_what_the_agent_was_given() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let signals = [
        "grep",
        "-E",
        "^(Sig(Blk|Ign|Cgt)|Threads|NoNewPrivs|Seccomp|Umask|Cap)",
        "/proc/self/status",
    ];
    let settings = [
        "cat",
        "/proc/self/limits",
        "/proc/self/timerslack_ns",
        "/proc/self/oom_score_adj",
        "/proc/self/personality",
        "/proc/self/cgroup",
        "/proc/self/cmdline",
    ];
    for given in [
        &["env"][..],
        &["env", "--block-signal=USR1", "--block-signal=CHLD", "--ignore-signal=PIPE"],
        &["env", "--ignore-signal=INT", "--ignore-signal=HUP", "A=1"],
    ] {
        for asked in [&signals[..], &settings, &["env", "-0"], &["ls", "/proc/self/fd"]] {
            let agent = binary();
            let exec = [agent.to_str().expect("a name"), "exec", "--file", "/dev/null", "--"];
            let said = |before: &[&str]| {
                let mut command = Command::new(given[0]);
                command.args(&given[1..]).args(before).args(asked).current_dir(scratch.path());
                let output = command.output().expect("it runs");
                assert!(output.status.success(), "{output:?}");
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            let alone = said(&[]);
            assert!(!alone.is_empty(), "{asked:?} says nothing");
            assert_eq!(said(&exec), alone, "{given:?} {asked:?}");
        }
    }
}

#[test]
fn exec_says_when_the_program_cannot_be_started_and_when_it_fails() {
    if !is_root() {
        return;
    }
    for (program, code, message) in [
        ("/no/such/program", 1, "cannot start /no/such/program"),
        ("false", 0, "the command has failed status=exit status: 1"),
    ] {
        let mut command = Command::new(binary());
        command.args(["exec", "--file", "/dev/null", "--", program]);
        let ended = Agent::start(&mut command).end();
        assert_eq!(ended.code, Some(code), "{:?}", ended.log);
        assert!(ended.log.iter().any(|line| line.contains(message)), "{:?}", ended.log);
    }
}

#[test]
fn a_process_in_other_namespaces_is_traced_and_joined() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let script = scripts().join("service.py");
    let shell = format!("ip link set lo up && exec python3 {} inner", script.display());
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "sh", "-c", &shell]);
    let outer = Program::start(&mut command);
    let port: u16 = outer.line().parse().expect("it prints its port");
    // The server is unshare's only child.
    let children = format!("/proc/{0}/task/{0}/children", outer.pid());
    let inner = std::fs::read_to_string(children).expect("unshare runs").trim().to_owned();
    // The same addresses and ports exist outside as well, and must not be taken for these.
    let agent = Agent::run(&scratch, &["--pid", &inner, "--exe", "curl"]);
    let enter = Command::new("nsenter")
        .args([
            "--net",
            "--target",
            &inner,
            "curl",
            "-s",
            &format!("http://127.0.0.1:{port}/inner"),
        ])
        .output()
        .expect("nsenter runs");
    assert_eq!(String::from_utf8_lossy(&enter.stdout), "inner");
    let ended = agent.stop();
    check_honest(&ended.spans);
    let client = ended.of("curl");
    let server = ended.of("service");
    assert_eq!((client.len(), server.len()), (1, 1), "{:?}", ended.log);
    assert_eq!(server[0].link(), "tcp_seq exact");
    assert_eq!(server[0].parent.as_ref(), Some(&client[0].id));
    assert_eq!(server[0].resource["process.pid"].to_string(), inner);
}

#[test]
fn two_network_namespaces_are_joined() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let name = format!("rmr{}", std::process::id());
    let network = Network::new(&name);
    let script = scripts().join("service.py");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.name, "python3"]).arg(script).arg("far");
    command.env("HOST", "0.0.0.0");
    let server = Program::start(&mut command);
    let port = server.line();
    let agent = Agent::run(&scratch, &["--pid", &pid(&server), "--exe", "curl"]);
    let url = format!("http://10.203.77.2:{port}/far");
    let answer = Command::new("curl").args(["-s", &url]).output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "far");
    let ended = agent.stop();
    check_honest(&ended.spans);
    assert_eq!(ended.spans.len(), 2, "{:?}", ended.log);
    assert_eq!(ended.of("service")[0].link(), "tcp_seq exact");
    assert_eq!(ended.of("service")[0].parent.as_ref(), Some(&ended.of("curl")[0].id));
}

/// As for the services of a cluster: neither end has the addresses that the other one knows.
#[test]
fn ends_whose_addresses_are_translated_are_joined() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let rules = "table ip translated {\n\
        chain before { type nat hook output priority -100; \
                       ip daddr 10.77.0.9 tcp dport 80 dnat to 10.77.0.1:8080; }\n\
        chain behind { type nat hook postrouting priority 100; tcp dport 8080 snat to 10.77.0.5; }\n}\n";
    let rules = scratch.write("rules", rules);
    let shell = format!(
        "ip link set lo up && ip addr add 10.77.0.1/32 dev lo && ip route add 10.77.0.0/24 dev lo && \
         nft -f {} && exec python3 {} far",
        rules.display(),
        scripts().join("service.py").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &shell]).env("HOST", "0.0.0.0").env("PORT", "8080");
    let server = Program::start(&mut command);
    assert_eq!(server.line(), "8080");
    let agent = Agent::run(&scratch, &["--pid", &pid(&server), "--exe", "curl"]);
    let urls = ["/1", "/2"].map(|path| format!("http://10.77.0.9{path}"));
    let mut ask = Command::new("nsenter");
    ask.args(["--net", "--target", &pid(&server), "curl", "--silent"]).args(&urls);
    let answer = ask.output().expect("nsenter runs");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "farfar", "{answer:?}");
    let ended = agent.stop();
    check_honest(&ended.spans);
    assert_eq!(ended.spans.len(), 4, "{:?}", ended.log);
    for (client, served) in ended.of("curl").iter().zip(ended.of("service")) {
        assert_eq!((client.text("url.full").ends_with(served.path()), served.kind), (true, SERVER));
        assert_eq!(client.text("server.address"), "10.77.0.9");
        assert_eq!(served.text("network.peer.address"), "10.77.0.5");
        assert_eq!(served.link(), "tcp_seq exact");
        assert_eq!(served.parent.as_ref(), Some(&client.id));
    }
}

/// A namespace with a cable to this one.
struct Network {
    name: String,
}

impl Network {
    fn new(name: &str) -> Self {
        let network = Self { name: name.to_owned() };
        let (near, far) = (format!("{name}a"), format!("{name}b"));
        let ip = |args: &str| {
            let status = Command::new("ip").args(args.split(' ')).status();
            assert!(status.expect("ip(8) is there").success(), "ip {args}");
        };
        ip(&format!("netns add {name}"));
        ip(&format!("link add {near} type veth peer name {far} netns {name}"));
        ip(&format!("addr add 10.203.77.1/30 dev {near}"));
        ip(&format!("link set {near} up"));
        ip(&format!("-n {name} addr add 10.203.77.2/30 dev {far}"));
        ip(&format!("-n {name} link set {far} up"));
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with the namespace.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[test]
fn unix_streams_are_joined() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.file("s");
    let path = path.to_str().expect("plain text");
    let go = format!("{path}.go");
    assert!(Command::new("mkfifo").arg(&go).status().expect("mkfifo(1) is there").success());
    let (server, _) = python("unix.py", &["server", path]);
    let (client, _) = python("unix.py", &["client", path]);
    let pids = format!("{},{}", server.pid(), client.pid());
    let agent = Agent::run(&scratch, &["--pid", &pids]);
    std::fs::write(&go, "go").expect("the client reads it");
    assert_eq!(client.line(), "unix");
    let ended = agent.stop();
    check_honest(&ended.spans);
    assert_eq!(ended.spans.len(), 2, "{:?}", ended.log);
    let (client, server) = match &ended.spans[..] {
        [one, two] if one.kind == CLIENT => (one, two),
        [one, two] => (two, one),
        _ => panic!("two spans"),
    };
    assert_eq!((client.kind, server.kind), (CLIENT, SERVER));
    assert_eq!(server.link(), "unix_peer exact");
    assert_eq!(server.parent.as_ref(), Some(&client.id));
}

#[test]
fn connections_older_than_the_agent_are_known() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (back, back_port) = service("back", &[]);
    let (proxy, port) = remora_tests::program::nginx(&scratch, back_port, "keepalive_timeout 60;");
    let mut wire = remora_tests::wire::Wire::to(port);
    wire.send(b"GET /before HTTP/1.1\r\nHost: h\r\n\r\n").expect("back");
    let pids = format!("{},{}", back.pid(), proxy.pid());
    let agent = Agent::run(&scratch, &["--pid", &pids]);
    let mine = wire.port();
    wire.send(b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n").expect("back");
    let ended = agent.stop();
    check_honest(&ended.spans);
    assert_eq!(ended.spans.len(), 3, "{:#?}", ended.spans);
    let root = ended.spans.iter().find(|span| span.parent.is_none()).expect("the first server");
    assert_eq!(root.kind, SERVER);
    assert_eq!(root.int("network.peer.port"), Some(mine.into()));
    assert_eq!(root.int("server.port"), Some(port.into()));
}

#[test]
fn a_recycled_process_id_is_another_process() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (stays, stays_port) = service("stays", &[]);
    let (mut goes, goes_port) = service("goes", &[]);
    let recycled = goes.pid();
    let agent = Agent::run(&scratch, &["--pid", &format!("{},{recycled}", stays.pid())]);
    get(goes_port, "/goes");
    goes.kill();
    // The next process gets the number after the last one (Documentation/admin-guide/sysctl/kernel.rst).
    let again = until("the same process id", || {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (recycled - 1).to_string()).ok()?;
        let (program, port) = service("again", &[]);
        (program.pid() == recycled).then_some((program, port))
    });
    get(again.1, "/again");
    get(stays_port, "/stays");
    let ended = agent.stop();
    let paths: Vec<_> = ended.spans.iter().map(|span| span.path()).collect();
    assert_eq!(paths, ["/goes", "/stays"], "{:?}", ended.log);
}

#[test]
fn what_cannot_be_traced_says_why() {
    if !is_root() {
        return;
    }
    for (args, code, message) in [
        (&["run", "--pid", "999999999"][..], 1, "it has exited or never existed"),
        (&["exec", "--", "no-such-program"], 1, "cannot start no-such-program: No such file"),
        (&["run", "--pid", "2"], 1, "is a kernel thread"),
        (&["run"], 2, "nothing to trace"),
        (&["run", "--pid", "x"], 2, "invalid value 'x'"),
        (&["run", "--all", "--metrics", "9464"], 2, "as 127.0.0.1:9464"),
        (&["run", "--all", "--otlp", "localhost:4317"], 2, "it has no scheme"),
        (&["run", "--all", "--ring-mib", "3"], 2, "a power of two"),
        (&["run", "--all", "--file", "/no/such/directory/file"], 1, "/no/such/directory/file"),
        (&["replay", "/no/such/file"], 1, "/no/such/file"),
        (&["replay", "/proc/self/exe"], 1, "not a recording"),
    ] {
        let ended = Agent::start(Command::new(binary()).args(args)).end();
        assert_eq!(ended.code, Some(code), "{args:?} {:?}", ended.log);
        assert!(ended.log.iter().any(|line| line.contains(message)), "{args:?} {:?}", ended.log);
    }
    listening_is_not_needed();
}

/// Who may not look into processes is told so, and not that there is nothing.
#[test]
fn what_may_not_be_looked_into_is_said() {
    if !is_root() {
        return;
    }
    let (server, _port) = service("closed", &[]);
    let pid = server.pid().to_string();
    let scratch = Scratch::new();
    // Where another user may run it.
    let copy = scratch.file("remora");
    std::fs::copy(binary(), &copy).expect("there is room");
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("it is ours");
    for (args, code, message) in [
        (&["run", "--pid", &pid][..], 1, "tracing needs root"),
        (&["functions", "--pid", &pid], 1, "run with sudo"),
        (&["ps"], 0, "run with sudo"),
        (&["plan", "--pid", &pid], 0, "run with sudo"),
    ] {
        let mut command = Command::new(&copy);
        let output = command.args(args).uid(65_534).gid(65_534).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?} {said}");
        assert!(said.contains(message), "{args:?} {said}");
    }
}

#[test]
fn a_file_can_hold_the_flags() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("configured", &[]);
    let text = format!(
        "pid = {}\nrequest-header = [\"X-Kept\"]\nsampler = \"always_off\"\n",
        pid(&server)
    );
    let file = scratch.write("remora.toml", &text);
    let file = file.to_str().expect("plain text");
    let agent = Agent::run(&scratch, &["--config", file, "--sampler", "always_on"]);
    Wire::to(port)
        .send(b"GET /configured HTTP/1.1\r\nX-Kept: kept\r\nConnection: close\r\n\r\n")
        .rest();
    let ended = agent.stop();
    assert_eq!(ended.spans.len(), 1, "a flag wins over the file: {:?}", ended.log);
    let header = &ended.spans[0].attributes["http.request.header.x-kept"];
    assert_eq!(header, &serde_json::json!(["kept"]));
    let wrong = scratch.write("wrong.toml", "pidd = 1\n");
    for (file, message) in
        [(wrong.to_str().expect("plain text"), "--pidd"), ("/no/file", "cannot read")]
    {
        let ended = Agent::start(Command::new(binary()).args(["run", "--config", file])).end();
        assert_eq!(ended.code, Some(2));
        assert!(ended.log.iter().any(|line| line.contains(message)), "{:?}", ended.log);
        assert!(ended.log.iter().any(|line| line.contains(file)), "{:?}", ended.log);
    }
}

/// `ps` and `plan` list without attaching.
fn listening_is_not_needed() {
    let (server, port) = service("listed", &[]);
    listening(port);
    let list = |args: &[&str]| {
        let output = Command::new(binary()).args(args).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        text.lines().map(parse).collect::<Vec<_>>()
    };
    let rows = list(&["ps", "--json"]);
    let row = rows.iter().find(|row| row["pid"] == server.pid()).expect("it listens");
    assert_eq!(row["ports"], serde_json::json!([port]));
    assert_eq!(row["service"], "service");
    let rows = list(&["plan", "--json", "--pid", &pid(&server)]);
    assert!(rows.iter().any(|row| row["kind"] == "probe"), "{rows:?}");
    assert!(rows.iter().any(|row| row["kind"] == "process" && row["pid"] == server.pid()));
}
