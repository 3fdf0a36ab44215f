//! Do no harm: whatever happens to the agent, the traced programs go on, and nothing stays behind.

use std::process::Command;

use remora_tests::agent::{Agent, binary};
use remora_tests::kernel::{has_program, programs_of};
use remora_tests::program::{free_port, python, service};
use remora_tests::wire::{Wire, get};
use remora_tests::{Scratch, is_root, until};

#[test]
fn killing_the_agent_leaves_the_target_and_nothing_else() {
    if !is_root() {
        return;
    }
    for signal in ["KILL", "TERM", "INT"] {
        let scratch = Scratch::new();
        let (server, port) = service("served", &[]);
        let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
        let mut wire = Wire::to(port);
        wire.send(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n").expect("served");
        let programs = programs_of(agent.pid());
        assert!(programs.len() >= 6, "{programs:?}");
        assert!(programs.iter().all(|id| has_program(*id)));
        wire.send(b"GET /2 HTTP/1.1\r\nHost:");
        agent.signal(signal);
        let ended = agent.end();
        assert_eq!(ended.code, if signal == "KILL" { None } else { Some(0) }, "{:?}", ended.log);
        // In mid-request, on the same connection.
        wire.send(b" h\r\n\r\n").expect("served");
        until("the programs' end", || programs.iter().all(|id| !has_program(*id)).then_some(()));
        assert!(get(port, "/after").ends_with("served"));
    }
}

#[test]
fn a_target_that_dies_in_mid_request_ends_its_span_and_the_agent() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (mut server, port) = python(
        "raw.py",
        &["r:\\r\\n\\r\\n", "w:HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\nhalf", "r:never"],
    );
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    let mut wire = Wire::to(port.parse().expect("it prints its port"));
    wire.send(b"GET /dies HTTP/1.1\r\nHost: h\r\n\r\n").expect("half");
    server.kill();
    // Nothing is left to trace, so it ends by itself.
    let ended = agent.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    assert_eq!(ended.spans.len(), 1, "{:?}", ended.log);
    assert_eq!(ended.spans[0].path(), "/dies");
    assert_ne!(ended.spans[0].text("error.type"), "", "{:#?}", ended.spans[0]);
}

#[test]
fn a_dead_backend_hurts_no_other_destination() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("served", &[]);
    let dead = format!("http://127.0.0.1:{}", free_port());
    let pid = server.pid().to_string();
    let args = ["--pid", &pid, "--otlp", &dead, "--zipkin", &dead, "--console"];
    let agent = Agent::run(&scratch, &args);
    for number in 0..10 {
        get(port, &format!("/{number}"));
    }
    let spans = agent.wait_for(10, |_| true);
    assert_eq!(spans.len(), 10, "the file does not wait for the backend");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.count("spans"), 10);
    assert_eq!(ended.count("exported"), 0, "not everywhere: {}", ended.done());
    assert_eq!(ended.count("otlp.shutdown"), 10, "{}", ended.done());
    assert_eq!(ended.count("zipkin.shutdown"), 10, "{}", ended.done());
    assert_eq!(ended.stdout.matches("GET /").count(), 10);
    let failures = ended.log.iter().filter(|line| line.contains("not reachable"));
    assert_eq!(failures.count(), 2, "a state is told once: {:?}", ended.log);
}

#[test]
fn a_full_disk_is_counted() {
    if !is_root() {
        return;
    }
    let (server, port) = service("served", &[]);
    let mut command = Command::new(binary());
    command.args(["run", "--file", "/dev/full", "--pid", &server.pid().to_string()]);
    let mut agent = Agent::start(&mut command);
    agent.ready();
    get(port, "/lost");
    agent.logged("spans are dropped");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.count("spans"), 1);
    assert_eq!(ended.count("lost"), 1);
    assert_eq!(ended.count("file.io_error"), 1, "{}", ended.done());
}

#[test]
fn two_agents_see_the_same() {
    if !is_root() {
        return;
    }
    let (one, two) = (Scratch::new(), Scratch::new());
    let (server, port) = service("served", &[]);
    let pid = server.pid().to_string();
    let (first, second) = (Agent::run(&one, &["--pid", &pid]), Agent::run(&two, &["--pid", &pid]));
    for number in 0..10 {
        get(port, &format!("/{number}"));
    }
    let (first, second) = (first.stop(), second.stop());
    let paths = |ended: &remora_tests::agent::Ended| {
        ended.spans.iter().map(|span| span.path().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&first).len(), 10, "{:?}", first.log);
    assert_eq!(paths(&first), paths(&second));
}

#[test]
fn a_span_leaves_while_the_agent_runs_and_a_replay_says_the_same() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let recording = scratch.file("recording");
    let (back, back_port) = service("back", &[]);
    let (front, port) = service("front", &[back_port]);
    let pids = format!("{},{}", back.pid(), front.pid());
    let recording = recording.to_str().expect("plain text");
    let agent = Agent::run(&scratch, &["--pid", &pids, "--record", recording]);
    for round in 1..4 {
        get(port, "/live");
        agent.wait_for(3 * round, |_| true);
    }
    let ended = agent.stop();
    assert_eq!(ended.count("spans"), 9);
    let replay = |name: &str| {
        let file = scratch.file(name);
        let mut command = Command::new(binary());
        command.args(["replay", recording, "--file"]).arg(&file);
        let again = Agent::start(&mut command).end();
        assert_eq!((again.code, again.count("exported")), (Some(0), 9), "{:?}", again.log);
        std::fs::read(file).expect("it was written")
    };
    let live = std::fs::read(scratch.file("spans.jsonl")).expect("it was written");
    assert!(replay("once") == live && replay("twice") == live, "byte for byte");
}

#[test]
fn an_idle_agent_does_not_wake() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("served", &[]);
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string()]);
    get(port, "/once");
    agent.wait_for(1, |_| true);
    let switches = || {
        let mut sum = 0_u64;
        let threads = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
        for thread in threads.flatten() {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        sum
    };
    // It may drain a few times more; then two looks far apart see the same.
    let idle = until("sleep", || {
        let before = switches();
        std::thread::park_timeout(std::time::Duration::from_secs(1));
        (switches() == before).then_some(before)
    });
    get(port, "/again");
    agent.wait_for(2, |_| true);
    assert!(switches() > idle, "a request wakes it");
    assert_eq!(agent.stop().count("spans"), 2);
}

#[test]
fn thousands_of_connections_and_of_short_processes() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("served", &[]);
    let agent = Agent::run(&scratch, &["--all", "--stats"]);
    let mut idle: Vec<Wire> = (0..2000).map(|_| Wire::to(port)).collect();
    for wire in idle.iter_mut().step_by(50) {
        wire.send(b"GET /idle HTTP/1.1\r\nHost: h\r\n\r\n").expect("served");
    }
    for _ in 0..300 {
        assert!(Command::new("true").status().expect("true(1) runs").success());
    }
    drop(idle);
    let me = server.pid();
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    let mine = |span: &&remora_tests::spans::Span| span.resource["process.pid"] == me;
    assert_eq!(ended.spans.iter().filter(mine).count(), 40, "{:?}", ended.log);
}

#[test]
fn the_agent_tells_about_itself() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("served", &[]);
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let pid = server.pid().to_string();
    let agent = Agent::run(&scratch, &["--pid", &pid, "--metrics", &address]);
    get(port, "/counted");
    agent.wait_for(1, |_| true);
    let text = get(metrics, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("\nremora_spans_total 1\n"), "{text}");
    assert!(text.contains("\nremora_processes_traced_total 1\n"), "{text}");
    assert!(text.contains("remora_exported_spans_total{destination=\"file "), "{text}");
    assert!(get(metrics, "/other").starts_with("HTTP/1.1 404"));
    // One who connects and says nothing holds nobody up.
    let silent = Wire::to(metrics);
    get(port, "/more");
    agent.wait_for(2, |_| true);
    drop(silent);
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn connections_that_are_reset_unseen_do_not_pile_up() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (server, port) = service("served", &[]);
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let agent = Agent::run(&scratch, &["--pid", &server.pid().to_string(), "--metrics", &address]);
    // As some health checks do: connect, and reset at once.
    let probe = format!(
        "import socket, struct\n\
         for _ in range(100):\n\
         \tone = socket.create_connection(('127.0.0.1', {port}))\n\
         \tone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n\
         \tone.close()\n"
    );
    assert!(Command::new("python3").args(["-c", &probe]).status().expect("it runs").success());
    get(port, "/after");
    agent.wait_for(1, |_| true);
    until("no socket", || get(metrics, "/").contains("\nremora_sockets 0\n").then_some(()));
    assert_eq!(agent.stop().count("spans"), 1);
}

#[test]
fn a_service_manager_is_told() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.file("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("the directory is ours");
    socket.set_read_timeout(Some(remora_tests::DEADLINE)).expect("not zero");
    let (server, _) = service("served", &[]);
    let mut command = Command::new(binary());
    command.args(["run", "--pid", &server.pid().to_string()]).env("NOTIFY_SOCKET", &path);
    let agent = Agent::start(&mut command);
    let mut buffer = [0; 64];
    let mut told = || {
        let length = socket.recv(&mut buffer).expect("it tells");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    agent.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(agent.end().code, Some(0));
}

#[test]
fn samplers_keep_whole_traces() {
    if !is_root() {
        return;
    }
    let (back, back_port) = service("back", &[]);
    let (front, port) = service("front", &[back_port]);
    let pids = format!("{},{}", back.pid(), front.pid());
    let ask = |sampler: &[&str]| {
        let scratch = Scratch::new();
        let agent = Agent::run(&scratch, &[&["--stats", "--pid", &pids], sampler].concat());
        for number in 0..40 {
            get(port, &format!("/{number}"));
        }
        agent.stop()
    };
    let none = ask(&["--sampler", "always_off"]);
    assert_eq!((none.count("spans"), none.count("lost")), (0, 0));
    assert_eq!(none.count("remora_spans_unsampled_total"), 120);
    let some = ask(&["--sampler", "traceidratio", "--sampler-arg", "0.5"]);
    let kept = some.count("spans");
    assert!(kept > 0 && kept < 120 && kept % 3 == 0, "{kept}");
    assert_eq!(kept + some.count("remora_spans_unsampled_total"), 120);
}
