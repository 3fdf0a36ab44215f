//! Functions of real programs, most of them as their packages bring them: what one sees of them in a
//! trace.

use std::collections::BTreeMap;
use std::process::Command;

use remora_tests::agent::{Agent, Ended, binary};
use remora_tests::backend::{Backend, JAEGER};
use remora_tests::compile::compile;
use remora_tests::program::{Program, free_port, listening, named_service, own_port};
use remora_tests::servers::{self, Row, Site};
use remora_tests::spans::{self, SERVER, Span};
use remora_tests::{Scratch, is_root};

/// What a test says when a program is missing.
macro_rules! needs {
    ($found:expr, $what:literal) => {
        match $found {
            Some(found) => found,
            None => {
                println!("skipped: needs {} (cargo xtask setup)", $what);
                return;
            }
        }
    };
}

/// The outline of a trace: each span below its parent, in the order in which they began.
fn outline(spans: &[Span]) -> String {
    let mut children: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    let is_here = |id: &str| spans.iter().any(|span| span.id == id);
    for span in spans {
        let parent = span.parent.as_deref().filter(|id| is_here(id)).unwrap_or_default();
        children.entry(parent).or_default().push(span);
    }
    let mut text = String::new();
    draw("", &children, 0, &mut text);
    text
}

fn draw(id: &str, children: &BTreeMap<&str, Vec<&Span>>, depth: usize, text: &mut String) {
    for span in children.get(id).into_iter().flatten() {
        text.push_str(&"  ".repeat(depth));
        text.push_str(&span.name);
        let values = span.attributes.iter().filter_map(|(key, value)| {
            let name =
                key.strip_prefix("remora.arg.").or((key == "remora.return").then_some("→"))?;
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some(format!(" {name}={}", value.trim_end()))
        });
        text.extend(values);
        if !span.text("error.type").is_empty() {
            text.push_str(&format!(" !{}", span.text("error.type")));
        }
        text.push('\n');
        draw(&span.id, children, depth + 1, text);
    }
}

fn curl(port: u16, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", &format!("http://127.0.0.1:{port}{path}")]);
    let output = command.output().expect("curl(1) is there");
    assert!(output.status.success(), "{path}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn named<'a>(ended: &'a Ended, name: &str) -> Vec<&'a Span> {
    ended.spans.iter().filter(|span| span.name == name).collect()
}

/// A server of the table under an agent that probes `functions`, asked for `/hello` so many times.
fn asked(row: &Row, functions: &[&str], times: usize) -> Option<Ended> {
    let scratch = Scratch::new();
    let site = Site { scratch: &scratch, port: own_port(), inner_port: own_port() };
    let mut commands = (row.start)(&site)?;
    let mut program = Program::logged(&mut commands.pop()?, &scratch.file("output"));
    listening(site.port);
    let pid = program.pid().to_string();
    let mut args = vec!["--pid", &pid, "--follow", "--stats", "--max-overhead", "1000%"];
    functions.iter().for_each(|pattern| args.extend(["--functions", pattern]));
    let agent = Agent::run(&scratch, &args);
    for _ in 0..times {
        assert_eq!(curl(site.port, "/hello"), "hello\n");
    }
    let ended = agent.stop();
    program.kill();
    assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
    Some(ended)
}

#[test]
fn a_cpp_service() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let server = needs!(compile(&scratch, "shown/orders.cpp", &["-O2", "-g"]), "a C++ compiler");
    let port = free_port();
    let mut command = Command::new(server);
    command.arg(port.to_string());
    let mut program = Program::logged(&mut command, &scratch.file("output"));
    listening(port);
    let pid = program.pid().to_string();
    let recording = scratch.file("recording").display().to_string();
    let args = ["--pid", &pid, "--functions", "shop::*", "--exceptions", "--record", &recording];
    let agent = Agent::run(&scratch, &args);
    assert_eq!(curl(port, "/order?id=7"), "701\n");
    assert_eq!(curl(port, "/order?id=100"), "no such order: 100\n");
    let ended = agent.stop();
    program.kill();
    let again = scratch.file("again.jsonl");
    let mut replay = Command::new(binary());
    replay.args(["replay", &recording, "--file"]).arg(&again);
    assert!(replay.output().expect("it is built").status.success());
    assert_eq!(spans::read(&again), ended.spans);
    let expected = "\
GET
  shop::handle path=/order?id=7 →=701
    shop::price currency=Dollar order={id: 7, customer: \"ada\"} →=701
GET !std::out_of_range
  shop::handle path=/order?id=100 !std::out_of_range
    shop::price currency=Dollar order={id: 100, customer: \"ada\"} !std::out_of_range
";
    let outline = outline(&ended.spans);
    assert_eq!(outline, expected, "{outline}");
    let events: Vec<_> = ended.spans.iter().flat_map(|span| &span.events).collect();
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0].attributes["exception.type"], "std::out_of_range");
    assert_eq!(events[0].attributes["exception.message"], "no such order: 100");
    for span in ended.spans.iter().filter(|span| span.kind != SERVER) {
        let exact = ["thread exact", "stack exact"];
        assert!(exact.contains(&span.link().as_str()), "{span:#?}");
        assert!(span.text("code.file.path").ends_with("orders.cpp"), "{span:#?}");
    }
}

/// A whole trace, as Jaeger has it: a request, the functions that serve it with their values, the request
/// that one of them makes and who serves that, and an exception.
#[test]
fn a_cpp_service_in_jaeger() {
    if !is_root() {
        return;
    }
    let Some(jaeger) = Backend::start(&JAEGER) else { return };
    let scratch = Scratch::new();
    let server = needs!(compile(&scratch, "shown/orders.cpp", &["-O2", "-g"]), "a C++ compiler");
    let (stock, stock_port) = named_service("stock", &[]);
    let port = free_port();
    let mut command = Command::new(server);
    command.args([port.to_string(), stock_port.to_string()]);
    let mut program = Program::logged(&mut command, &scratch.file("output"));
    listening(port);
    let pids = format!("{},{}", program.pid(), stock.pid());
    let url = jaeger.url("grpc", "GRPC_PORT");
    let args = ["--pid", &pids, "--functions", "shop::*", "--exceptions", "--otlp", &url];
    let agent = Agent::run(&scratch, &args);
    assert_eq!(curl(port, "/order?id=100"), "no such order: 100\n");
    let made = agent.wait_for(6, |_| true);
    let expected = "\
GET !std::out_of_range
  shop::handle path=/order?id=100 !std::out_of_range
    shop::in_stock id=100 →=LENGTH
      GET
        GET
    shop::price currency=Dollar order={id: 100, customer: \"ada\"} !std::out_of_range
";
    let length = made.iter().find(|span| span.name == "shop::in_stock");
    let length = length.and_then(|span| span.int("remora.return")).unwrap_or_default();
    let outline = outline(&made);
    assert_eq!(outline, expected.replace("LENGTH", &length.to_string()), "{outline}");
    jaeger.has_just(&made);
    let ended = agent.stop();
    program.kill();
    assert_eq!(ended.done(), "spans=6 exported=6 lost=0", "{:#?}", ended.log);
}

#[test]
fn a_library_that_is_opened_later() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let flags = ["-O2", "-shared", "-fPIC"];
    let library = needs!(compile(&scratch, "hazards/library.c", &flags), "a C compiler");
    let later = needs!(compile(&scratch, "shown/later.c", &["-O2", "-ldl"]), "a C compiler");
    let mut program = Program::start_told(Command::new(later).arg(&library));
    assert_eq!(program.line(), "up");
    let pid = program.pid().to_string();
    let mut agent =
        Agent::run(&scratch, &["--pid", &pid, "--functions", "library!shared", "--log", "info"]);
    program.tell("open");
    assert_eq!(program.line(), "opened");
    agent.logged("module=\"library\"");
    program.tell("call");
    assert_eq!(program.line(), "done");
    let ended = agent.stop();
    program.kill();
    // Each call of the other function calls it twice.
    assert_eq!(named(&ended, "shared").len(), 10, "{:#?}", ended.log);
}

#[test]
fn polls_of_async_rust() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let flags = ["-O", "-g", "--crate-name", "polls"];
    let polls = needs!(compile(&scratch, "shown/polls.rs", &flags), "rustc");
    let file = scratch.file("spans.jsonl");
    let mut command = Command::new(binary());
    command.args(["exec", "--functions", "polls::fetch::*", "--max-overhead", "1000%", "--file"]);
    let ended = Agent::start(command.arg(&file).arg("--").arg(polls)).end();
    assert_eq!(ended.stdout, "5\n", "{:#?}", ended.log);
    let mut polls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for span in spans::read(&file) {
        let results = polls.entry(span.text("remora.future").to_owned()).or_default();
        results.push(span.text("remora.return").to_owned());
    }
    let mut polls: Vec<Vec<String>> = polls.into_values().collect();
    polls.sort();
    assert_eq!(polls, [["Pending", "Ready(2)"], ["Pending", "Ready(3)"]]);
}

#[test]
fn a_go_service() {
    if !is_root() {
        return;
    }
    let ended = needs!(asked(&servers::GO, &["main.*"], 5), "go");
    let handlers = named(&ended, "main.main.func2");
    assert_eq!(handlers.len(), 5, "{:#?}", ended.spans);
    for handler in handlers {
        let parent = ended.spans.iter().find(|span| Some(&span.id) == handler.parent.as_ref());
        assert_eq!(parent.map(|span| (span.kind, span.path())), Some((SERVER, "/hello")));
        assert_eq!(handler.link(), "goroutine exact");
        assert_eq!(handler.text("remora.arg.w"), "*http.response");
        assert!(handler.text("remora.arg.r").contains("Method: \"GET\""), "{handler:#?}");
        assert!(handler.text("code.file.path").ends_with("server.go"), "{handler:#?}");
    }
}

#[test]
fn an_axum_service() {
    if !is_root() {
        return;
    }
    let ended = needs!(asked(&servers::AXUM, &["axum_server::has_it"], 5), "axum");
    let calls = named(&ended, "axum_server::has_it");
    assert_eq!(calls.len(), 5, "{:#?}", ended.spans);
    for call in calls {
        let parent = ended.spans.iter().find(|span| Some(&span.id) == call.parent.as_ref());
        assert_eq!(parent.map(|span| (span.kind, span.path())), Some((SERVER, "/hello")));
        // Tokio's threads take what comes: one request at a time says who it was, but proves nothing.
        assert_eq!(call.link(), "thread inferred");
    }
}

#[test]
fn nginx_without_its_symbols() {
    if !is_root() {
        return;
    }
    let functions =
        ["ngx_http_process_request", "ngx_http_send_header", "ngx_http_finalize_request"];
    let ended = needs!(asked(&servers::NGINX, &functions, 5), "nginx");
    assert_eq!(named(&ended, "ngx_http_process_request").len(), 5, "{:#?}", ended.spans);
    let sent = named(&ended, "ngx_http_send_header");
    assert_eq!(sent.len(), 5);
    for span in sent {
        let up = |span: &Span| ended.spans.iter().find(|up| Some(&up.id) == span.parent.as_ref());
        let mut top = span;
        while let Some(above) = up(top) {
            top = above;
        }
        assert_eq!((top.kind, top.path()), (SERVER, "/hello"), "{span:#?}");
    }
}

/// Debian keeps what debug information says of a library in a package of its own, found by build id.
#[test]
fn nginx_and_the_debug_package_of_its_library() {
    if !is_root() {
        return;
    }
    if !std::path::Path::new("/var/lib/dpkg/info/libc6-dbg:amd64.list").exists() {
        println!("skipped: needs libc6-dbg (cargo xtask setup)");
        return;
    }
    let ended = needs!(asked(&servers::NGINX, &["libc.so.6!writev"], 5), "nginx");
    let written = named(&ended, "writev");
    assert_eq!(written.len(), 5, "{:#?}", ended.spans);
    for span in written {
        let parent = ended.spans.iter().find(|up| Some(&up.id) == span.parent.as_ref());
        let parent = parent.expect("it is written for a request");
        assert_eq!((parent.kind, parent.path()), (SERVER, "/hello"), "{span:#?}");
        assert!(span.int("remora.arg.iovcnt").is_some_and(|count| count > 0), "{span:#?}");
        let body = parent.int("http.response.body.size");
        assert!(span.int("remora.return") > body, "what is written has a head: {span:#?}");
    }
}

#[test]
fn redis_commands() {
    if !is_root() {
        return;
    }
    let redis = needs!(servers::installed("redis-check-rdb"), "redis-tools");
    let scratch = Scratch::new();
    // One program under several names.
    let server = scratch.file("redis-server");
    std::os::unix::fs::symlink(redis, &server).expect("the directory is ours");
    let port = own_port();
    let mut command = Command::new(server);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.arg("--dir").arg(scratch.path());
    let mut redis = Program::logged(&mut command, &scratch.file("output"));
    listening(port);
    let pid = redis.pid().to_string();
    let functions = ["--functions", "setCommand", "--functions", "lpushCommand"];
    let mut args = vec!["--pid", &pid, "--stats", "--max-overhead", "1000%"];
    args.extend(functions);
    let agent = Agent::run(&scratch, &args);
    let mut load = Command::new("redis-benchmark");
    load.args(["-p", &port.to_string(), "-n", "1000", "-c", "8", "-q", "-t", "set,lpush"]);
    assert!(load.output().expect("redis-tools has it").status.success());
    let ended = agent.stop();
    redis.kill();
    assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
    assert_eq!(named(&ended, "setCommand").len(), 1000);
    assert_eq!(named(&ended, "lpushCommand").len(), 1000);
    assert!(ended.spans.iter().all(|span| span.text("remora.end.reason").is_empty()));
}

/// PostgreSQL for one user, without a network: a query a line.
#[test]
fn postgresql_and_its_tracepoints() {
    if !is_root() {
        return;
    }
    let bin = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().next();
    let bin = needs!(bin, "postgresql").path().join("bin");
    let scratch = Scratch::new();
    let data = scratch.file("data");
    let chown = Command::new("chown").arg("postgres").arg(scratch.path()).status();
    assert!(chown.expect("chown(1) is there").success());
    let postgres = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(bin.join(program)).arg("-D").arg(&data).current_dir(scratch.path());
        command
    };
    let made = postgres("initdb").output().expect("setpriv(1) is there");
    assert!(made.status.success(), "{made:?}");
    let mut command = postgres("postgres");
    // `--single` must come first.
    let mut single = Command::new("setpriv");
    single.args(command.get_args().take(4)).arg("--single");
    single.args(command.get_args().skip(4)).arg("postgres").current_dir(scratch.path());
    command = single;
    let mut program = Program::start_told(&mut command);
    program.line_after("PostgreSQL stand-alone backend");
    let pid = program.pid().to_string();
    let mut args = vec!["--pid", &pid, "--stats", "--max-overhead", "1000%"];
    args.extend(["--functions", "pg_parse_query", "--functions", "ExecutorRun"]);
    args.extend(["--usdt", "postgresql:query__parse__start@text=0"]);
    let agent = Agent::run(&scratch, &args);
    for number in 1..=5 {
        program.tell(&format!("select 40 + {number};"));
        program.line_after(&format!("\"{}\"", 40 + number));
    }
    let ended = agent.stop();
    program.kill();
    assert_eq!(ended.count("lost"), 0, "{:#?}", ended.log);
    let parsed = named(&ended, "pg_parse_query");
    let queries: Vec<&str> = parsed
        .iter()
        .map(|span| {
            assert_eq!(span.events.len(), 1, "{span:#?}");
            assert_eq!(span.events[0].name, "postgresql:query__parse__start");
            span.events[0].attributes["remora.arg.0"].as_str().unwrap_or_default().trim_end()
        })
        .collect();
    let expected: Vec<String> = (1..=5).map(|number| format!("select 40 + {number};")).collect();
    assert_eq!(queries, expected);
    assert_eq!(named(&ended, "ExecutorRun").len(), 5);
}

#[test]
fn functions_of_cpython_in_c() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let script = "import sys\nprint('up', flush=True)\nfor line in sys.stdin:\n    \
                  [sorted([2, 1]) for _ in range(int(line))]\n    print('done', flush=True)\n";
    let mut command = Command::new("python3");
    command.arg("-u").arg(scratch.write("sort.py", script));
    let mut python = Program::start_told(&mut command);
    assert_eq!(python.line(), "up");
    let pid = python.pid().to_string();
    // It is in the executable, or in a library beside it.
    let args = ["--pid", &pid, "--max-overhead", "1000%", "--stats"];
    let patterns = ["--functions", "PyList_Sort", "--functions", "libpython*!PyList_Sort"];
    let agent = Agent::run(&scratch, &[&args[..], &patterns].concat());
    python.tell("100");
    assert_eq!(python.line(), "done");
    let ended = agent.stop();
    python.kill();
    let sorted = named(&ended, "PyList_Sort").len();
    // `sorted` calls the method's own body in some versions, and the function in others.
    assert!(sorted == 100 || sorted == 0, "{sorted}: {:#?}", ended.log);
}
