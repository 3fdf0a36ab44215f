//! Which container and which service a process belongs to, by the names of its cgroups.

/// The container's id (64 hexadecimal digits) that container engines put into cgroup paths.
pub fn container_id(cgroups: &[String]) -> Option<&str> {
    cgroups.iter().find_map(|line| {
        // hierarchy:controllers:path
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            let id = part.rsplit(['-', ':']).next()?;
            let hexadecimal = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (id.len() == 64 && hexadecimal).then_some(id)
        })
    })
}

/// The systemd service, without its ending. Sessions, user managers and slices name no service.
pub fn systemd_unit(cgroups: &[String]) -> Option<&str> {
    cgroups.iter().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        let part = path.rsplit('/').find(|part| part.ends_with(".service"))?;
        let name = part.strip_suffix(".service")?;
        // A template's instance (`getty@tty1`) is told by the template's name.
        let name = name.split('@').next().unwrap_or(name);
        (!name.is_empty() && name != "user").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4a1c5e8b2d7f60912a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80";

    #[test]
    fn names_are_read_from_paths() {
        for (line, container, unit) in [
            ("0::/", None, None),
            ("0::/system.slice/nginx.service", None, Some("nginx")),
            (
                "1:name=systemd:/system.slice/system-getty.slice/getty@tty1.service",
                None,
                Some("getty"),
            ),
            ("0::/user.slice/user-0.slice/user@0.service/init.scope", None, None),
            ("0::/user.slice/user-0.slice/session-1.scope", None, None),
            ("0::/user.slice/user-1.slice/user@1.service/app.slice/web.service", None, Some("web")),
            ("12:pids:/docker/ID", Some(ID), None),
            ("0::/system.slice/docker-ID.scope", Some(ID), None),
            ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", Some(ID), None),
            ("4:cpu:/kubepods/burstable/pod12/ID", Some(ID), None),
            ("0::/machine.slice/libpod-ID.scope/container", Some(ID), None),
            (
                "0::/system.slice/containerd.service/kubepods:cri-containerd:ID",
                Some(ID),
                Some("containerd"),
            ),
            ("0::/docker/shorter", None, None),
            ("garbage", None, None),
        ] {
            let lines = [line.replace("ID", ID)];
            assert_eq!(container_id(&lines), container, "{line}");
            assert_eq!(systemd_unit(&lines), unit, "{line}");
        }
    }
}
