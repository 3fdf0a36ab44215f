//! Service names, by table; attributes of one whole resource.

use std::path::PathBuf;

use super::*;
use crate::event::ids::Tgid;

fn facts(exe: &str, args: &str) -> Facts {
    Facts {
        tgid: Tgid(42),
        parent: Tgid(1),
        start_ticks: 7,
        comm: "comm".into(),
        exe: PathBuf::from(exe),
        deleted: false,
        exe_id: None,
        args: args.split(' ').map(str::to_owned).collect(),
        uid: Some(33),
        cgroups: vec!["0::/".into()],
        inner_pid: 42,
        otel_service_name: None,
        otel_resource_attributes: None,
        cwd: PathBuf::from("/srv/shop"),
    }
}

#[test]
fn services_are_called_what_an_operator_would_call_them() {
    for (exe, args, name) in [
        ("/usr/sbin/nginx", "nginx: worker process", "nginx"),
        ("/usr/bin/python3.11", "python3 -m http.server 8000", "http.server"),
        ("/usr/bin/python3.11", "python3 -u billing.py --port 80", "billing"),
        ("/usr/bin/python3.11", "/usr/bin/python3 /usr/bin/gunicorn app:app", "gunicorn"),
        ("/usr/bin/python3.11", "python3 -c pass", "python3.11"),
        ("/usr/bin/node", "node server.js", "shop"),
        ("/usr/bin/node", "node --require ./x.js cart.js", "cart"),
        ("/usr/lib/jvm/bin/java", "java -Xmx1g -cp a:b com.example.Orders", "Orders"),
        ("/usr/lib/jvm/bin/java", "java -jar /opt/pay-1.2.jar", "pay-1.2"),
        ("/usr/lib/jvm/bin/java", "java Server.java", "Server"),
        ("/usr/lib/jvm/bin/java", "java com.example.", "java"),
        ("/opt/api", "api", "api"),
        ("", "", "comm"),
    ] {
        let resource = resource(&facts(exe, args), None, &Host::default());
        assert_eq!(resource.service_name, name, "{exe} {args}");
    }
}

#[test]
fn a_title_names_the_program_that_wrote_it() {
    for (exe, title, name) in [
        ("/usr/bin/ruby3.1", "puma 5.6.5 (tcp://0.0.0.0:80) [shop]", "puma"),
        ("/usr/bin/ruby3.1", "puma: cluster worker 0: 99 [shop]", "puma"),
        ("/usr/bin/python3.11", "gunicorn: master [shop]", "gunicorn"),
        ("/usr/bin/python3.11", "python3", "python3.11"),
        ("/usr/bin/node", "node", "node"),
    ] {
        let facts = Facts { args: vec![title.to_owned()], ..facts(exe, "") };
        assert_eq!(resource(&facts, None, &Host::default()).service_name, name, "{title}");
    }
}

#[test]
fn a_process_in_a_pid_namespace_has_two_ids() {
    let mut facts = facts("/opt/api", "api");
    let vpid = |facts: &Facts| {
        let attributes = resource(facts, None, &Host::default()).attributes;
        attributes.get("process.vpid").and_then(|value| match value {
            Value::Int(id) => Some(id),
            _ => None,
        })
    };
    assert_eq!(vpid(&facts), None);
    facts.inner_pid = 1;
    assert_eq!(vpid(&facts), Some(1));
}

#[test]
fn what_the_process_was_told_wins() {
    let mut facts = facts("/opt/api", "api");
    facts.cgroups = vec!["0::/system.slice/web.service".into()];
    let name = |facts: &Facts| resource(facts, None, &Host::default()).service_name;
    assert_eq!(name(&facts), "web");
    facts.otel_resource_attributes = Some("service.name=told%20you,team=a".into());
    assert_eq!(name(&facts), "told you");
    facts.otel_service_name = Some("named".into());
    assert_eq!(name(&facts), "named");
    let attributes = resource(&facts, None, &Host::default()).attributes;
    assert_eq!(attributes.get("team"), Some(Value::Text("a")));
    assert_eq!(attributes.get("service.name"), Some(Value::Text("named")));
    assert_eq!(attributes.get("process.pid"), Some(Value::Int(42)));
}

#[test]
fn malformed_resource_attributes_are_none() {
    for malformed in ["a", "a=b,c", "=b", "a=%zz", "a=%ff"] {
        assert_eq!(told_attributes(malformed), [], "{malformed}");
    }
    assert_eq!(told_attributes("a=1,,a=2 "), [("a".to_owned(), "2".to_owned())]);
}
