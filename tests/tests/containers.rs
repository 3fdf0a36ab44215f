//! Containers as the kernel knows them: processes in namespaces and control groups of their own, without
//! an engine. Addresses, process ids, names and parents are right across them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use remora_tests::agent::Agent;
use remora_tests::program::{Program, scripts, tree};
use remora_tests::spans::{CLIENT, SERVER, Span, check_honest};
use remora_tests::{DEADLINE, Scratch, copy_program, is_root, until};

/// Where control groups of version 2 are.
fn cgroups() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("there are mounts");
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = lines.find(|line| line.get(2) == Some(&"cgroup2")).expect("a host has cgroup v2");
    PathBuf::from(found[1])
}

/// A network namespace and a control group that is named as engines name those of containers.
struct Container {
    name: String,
    id: String,
    cgroup: PathBuf,
}

impl Container {
    fn new(name: &str, number: u32) -> Self {
        let name = format!("{name}{number}-{}", std::process::id());
        // Sixty-four hexadecimal digits that tell which one it is.
        let id = format!("{:08x}{:056x}", std::process::id(), number);
        let cgroup = cgroups().join(format!("remora-{name}/docker-{id}.scope"));
        std::fs::create_dir_all(&cgroup).expect("root may make control groups");
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self { name, id, cgroup }
    }

    /// A command in it: with mounts, processes and users of its own, and the scripts at `/mnt` only.
    fn command(&self, inner: &str) -> Command {
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec nsenter --net=/run/netns/{} unshare --user \
             --map-root-user --pid --fork --kill-child --mount --mount-proc --cgroup \
             sh -c 'mount --bind {} /mnt && exec {inner}'",
            self.cgroup.display(),
            self.name,
            scripts().display(),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &enter]);
        command
    }

    /// Starts a program in it; its process id outside.
    fn start(&self, command: &mut Command, wanted: &str) -> (Program, u32) {
        let program = Program::start(command);
        let pid = until("the program", || {
            let comm = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
            let is_it = |pid: &u32| comm(pid).is_ok_and(|comm| comm.trim() == wanted);
            tree(program.pid()).into_iter().find(is_it)
        });
        (program, pid)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        // Its last process may take a moment to leave.
        let end = Instant::now() + DEADLINE;
        while let Err(error) = std::fs::remove_dir(&self.cgroup) {
            if Instant::now() > end {
                eprintln!("cannot remove {}: {error}", self.cgroup.display());
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = self.cgroup.parent().map(std::fs::remove_dir);
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    assert!(status.expect("ip(8) is there").success(), "ip {args}");
}

/// A cable between two of them.
fn connect(one: &Container, two: &Container, net: u8) {
    let (a, b) = (format!("a{net}"), format!("b{net}"));
    ip(&format!("-n {} link add {a} type veth peer name {b} netns {}", one.name, two.name));
    for (container, link, host) in [(one, a, 1), (two, b, 2)] {
        ip(&format!("-n {} addr add 10.203.{net}.{host}/30 dev {link}", container.name));
        ip(&format!("-n {} link set {link} up", container.name));
    }
}

/// A client, a proxy and a server, each in a container; the same addresses in every pod.
struct Pod {
    /// Ended before what they run in.
    _programs: [Program; 2],
    /// Process ids outside, of proxy and server.
    pids: [u32; 2],
    client: Container,
    proxy: Container,
    server: Container,
}

impl Pod {
    fn new(scratch: &Scratch, number: u32) -> Self {
        let container = |name: &str, index| Container::new(name, 10 * number + index);
        let (client, proxy, server) =
            (container("rmrc", 1), container("rmrp", 2), container("rmrs", 3));
        connect(&client, &proxy, 1);
        connect(&proxy, &server, 2);
        let mut command = server.command("python3 /mnt/service.py inner");
        command.env("HOST", "10.203.2.2").env("PORT", "8080");
        command.env("OTEL_SERVICE_NAME", format!("server-{number}"));
        let (back, back_pid) = server.start(&mut command, "python3");
        back.line();
        let at = scratch.file(&format!("pod-{number}"));
        std::fs::create_dir(&at).expect("the directory is ours");
        let nginx = nginx(&at);
        let (front, front_pid) = proxy.start(&mut proxy.command(&nginx), "nginx");
        let pids = [front_pid, back_pid];
        Self { _programs: [front, back], pids, client, proxy, server }
    }

    /// Its client asks, and stays until the agent has looked at it: a program that is gone by then
    /// is told by its name and its container only.
    fn ask(&self, curl: &Path, path: &str, agent: &mut Agent, go: &Path) {
        let (name, go) = (curl.file_name().expect("a file").to_string_lossy(), go.display());
        let url = format!("http://10.203.1.2:8080/{path}");
        let line = format!("{} -s {url} file://{go}", curl.display());
        let (mut client, pid) = self.client.start(&mut self.client.command(&line), &name);
        agent.logged(&format!("pid={pid} service={name}"));
        std::fs::write(go.to_string(), "\n").expect("the client reads it");
        assert_eq!(client.line(), "inner");
        assert_eq!(client.wait(), Some(0));
    }
}

/// Runs nginx before the server of its pod.
fn nginx(at: &Path) -> String {
    let at = at.display();
    let text = format!(
        "daemon off; master_process off; user root; pid {at}/pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/1; proxy_temp_path {at}/2;\n\
         fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;\n\
         server {{ listen 10.203.1.2:8080;\n\
         location / {{ proxy_pass http://10.203.2.2:8080; }} }} }}\n"
    );
    let file = format!("{at}/nginx.conf");
    std::fs::write(&file, text).expect("the directory is ours");
    format!("nginx -e stderr -c {file}")
}

#[test]
fn a_request_through_three_containers_is_one_trace_with_their_names() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    // A program that no one else on this host starts.
    let name = format!("ask-{}", std::process::id());
    let curl = scratch.file(&name);
    let real = remora_tests::servers::installed("curl").expect("curl is there");
    copy_program(&real, &curl);
    let pods = [Pod::new(&scratch, 1), Pod::new(&scratch, 2)];
    let pids: Vec<String> =
        pods.iter().flat_map(|pod| pod.pids).map(|pid| pid.to_string()).collect();
    let go = scratch.file("go");
    assert!(Command::new("mkfifo").arg(&go).status().expect("mkfifo(1) is there").success());
    for pod in &pods {
        until("the proxy", || {
            let mut command = pod.client.command("curl -sf http://10.203.1.2:8080/");
            command.output().is_ok_and(|output| output.status.success()).then_some(())
        });
    }
    let options = ["--log", "info", "--stats", "--pid", &pids.join(","), "--exe", &name];
    let mut agent = Agent::run(&scratch, &options);
    for round in 0..5 {
        for (number, pod) in pods.iter().enumerate() {
            pod.ask(&curl, &format!("{number}/{round}"), &mut agent, &go);
        }
    }
    let ended = agent.stop();
    assert_eq!(ended.count("lost"), 0, "{:?}", ended.log);
    check_honest(&ended.spans);
    assert_eq!(ended.spans.len(), 2 * 5 * 4, "{:#?}", ended.log);
    let by_id: BTreeMap<&str, &Span> =
        ended.spans.iter().map(|span| (span.id.as_str(), span)).collect();
    for span in &ended.spans {
        let number: usize = span.path()[1..2].parse().expect("which pod was asked");
        let pod = &pods[number];
        let parent = span.parent.as_deref().and_then(|id| by_id.get(id));
        assert_eq!(parent.map_or(span.path(), |parent| parent.path()), span.path());
        let server_name = format!("server-{}", number + 1);
        let resource = |key: &str| span.resource.get(key).cloned().unwrap_or_default();
        let is_server = span.kind == SERVER;
        let (container, service, outside, local, peer) = match (span.service.as_str(), is_server) {
            (service, false) if service == name => {
                (&pod.client, name.as_str(), None, "10.203.1.2", "10.203.1.2")
            }
            ("nginx", true) => (&pod.proxy, "nginx", Some(pod.pids[0]), "10.203.1.2", "10.203.1.1"),
            ("nginx", false) => {
                (&pod.proxy, "nginx", Some(pod.pids[0]), "10.203.2.2", "10.203.2.2")
            }
            _ => (&pod.server, server_name.as_str(), Some(pod.pids[1]), "10.203.2.2", "10.203.2.1"),
        };
        assert_eq!(resource("container.id"), container.id, "{span:#?}");
        assert_eq!(resource("service.name"), service, "{span:#?}");
        // The first process of its namespace.
        assert_eq!(resource("process.vpid"), 1, "{span:#?}");
        if let Some(outside) = outside {
            assert_eq!(resource("process.pid"), outside, "{span:#?}");
        }
        assert_eq!(span.text("server.address"), local, "{span:#?}");
        assert_eq!(span.text("network.peer.address"), peer, "{span:#?}");
        assert_eq!(span.int("server.port"), Some(8080), "{span:#?}");
        let link = match (service, is_server) {
            ("nginx", false) => "nginx_request exact",
            (_, false) => "",
            (_, true) => "tcp_seq exact",
        };
        assert_eq!(span.link(), link, "{span:#?}");
    }
    assert_eq!(ended.spans.iter().filter(|span| span.kind == CLIENT).count(), 2 * 5 * 2);
}

/// What a container's program is called when nobody could look at it in time: its name and its container
/// are told all the same.
#[test]
fn a_program_that_is_gone_before_it_is_looked_at() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let name = format!("gone-{}", std::process::id());
    let curl = scratch.file(&name);
    let real = remora_tests::servers::installed("curl").expect("curl is there");
    copy_program(&real, &curl);
    let container = Container::new("rmrg", 7);
    let mut server = container.command("python3 /mnt/service.py inner");
    server.env("HOST", "127.0.0.1").env("PORT", "8080");
    let (back, _) = container.start(&mut server, "python3");
    back.line();
    let agent = Agent::run(&scratch, &["--log", "info", "--exe", &name]);
    // It does not look at anything until the program is gone, and its group with it.
    agent.signal("STOP");
    let inner = format!("{}/inner-{:x}", container.cgroup.display(), 7);
    let line = format!("{} -sf http://127.0.0.1:8080/brief", curl.display());
    let enter = format!(
        "mkdir {inner} && echo $$ > {inner}/cgroup.procs && \
         nsenter --net=/run/netns/{} {line} && echo $$ > {}/cgroup.procs && rmdir {inner}",
        container.name,
        cgroups().display(),
    );
    let output = Command::new("sh").args(["-c", &enter]).output().expect("sh(1) is there");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"inner");
    agent.signal("CONT");
    let ended = agent.stop();
    let [span] = ended.of(&name)[..] else { panic!("one request: {:#?}", ended.log) };
    assert_eq!(span.resource.get("container.id"), Some(&container.id.as_str().into()), "{span:#?}");
    assert_eq!(span.resource.get("process.command_args"), None, "it was looked at: {span:#?}");
}
