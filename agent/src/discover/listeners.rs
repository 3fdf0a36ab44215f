//! Which processes listen on which TCP ports, in every network namespace of the host.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use procfs::process::{FDTarget, Process};

use super::process::{self, Facts};
use crate::event::ids::Tgid;

/// Listening ports by process. Processes that vanish meanwhile, or that may not be looked into, are
/// left out.
pub fn by_process(tgids: &[Tgid]) -> HashMap<Tgid, BTreeSet<u16>> {
    // Every process of a namespace sees the same list, so it is read once.
    let mut namespaces: HashMap<u64, HashMap<u64, u16>> = HashMap::new();
    let mut ports: HashMap<Tgid, BTreeSet<u16>> = HashMap::new();
    for tgid in tgids {
        let directory = process::directory(Path::new("/proc"), *tgid);
        let Ok(process) = Process::new_with_root(directory) else { continue };
        let sockets = sockets(&process);
        if sockets.is_empty() {
            continue;
        }
        let listening =
            namespaces.entry(namespace(&process)).or_insert_with(|| listening(&process));
        let mine: BTreeSet<u16> =
            sockets.iter().filter_map(|inode| listening.get(inode)).copied().collect();
        if !mine.is_empty() {
            ports.insert(*tgid, mine);
        }
    }
    ports
}

/// Adds those to whom the processes of a port may pass connections on, which have no listener then: children that
/// run the same program, and theirs. What else a process has started (the first one of a host, which listens for
/// services, all of them) is another program. Who was added.
pub fn add_workers<'f>(all: &'f [Facts], by_port: &mut HashMap<Tgid, u16>) -> Vec<&'f Facts> {
    let mut children: HashMap<Tgid, Vec<&Facts>> = HashMap::new();
    for facts in all {
        children.entry(facts.parent).or_default().push(facts);
    }
    let mut parents: Vec<&Facts> =
        all.iter().filter(|facts| by_port.contains_key(&facts.tgid)).collect();
    let mut added = Vec::new();
    while let Some(parent) = parents.pop() {
        let Some(port) = by_port.get(&parent.tgid).copied() else { continue };
        for child in children.remove(&parent.tgid).unwrap_or_default() {
            let is_worker = child.exe_id.is_some() && child.exe_id == parent.exe_id;
            if is_worker && !by_port.contains_key(&child.tgid) {
                by_port.insert(child.tgid, port);
                added.push(child);
                parents.push(child);
            }
        }
    }
    added
}

/// Inodes of the sockets that a process has open.
fn sockets(process: &Process) -> HashSet<u64> {
    let Ok(descriptors) = process.fd() else { return HashSet::new() };
    let socket = |target| match target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    };
    descriptors.flatten().filter_map(|descriptor| socket(descriptor.target)).collect()
}

fn namespace(process: &Process) -> u64 {
    let namespaces = process.namespaces().map(|namespaces| namespaces.0).unwrap_or_default();
    namespaces.get(std::ffi::OsStr::new("net")).map_or(0, |net| net.identifier)
}

/// Ports of the listening sockets in a process's network namespace, by inode.
fn listening(process: &Process) -> HashMap<u64, u16> {
    let v4 = process.tcp().unwrap_or_default();
    let v6 = process.tcp6().unwrap_or_default();
    let listens = |entry: &procfs::net::TcpNetEntry| entry.state == procfs::net::TcpState::Listen;
    let sockets = v4.into_iter().chain(v6).filter(listens);
    sockets.map(|entry| (entry.inode, entry.local_address.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let me = Tgid(std::process::id());
        let ports = by_process(&[me, Tgid(0x7fff_fff0)]);
        assert!(ports.get(&me).is_some_and(|ports| ports.contains(&port)));
    }
}
