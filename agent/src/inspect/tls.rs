//! Which TLS library a process has loaded, by the names of its mapped files.

use std::path::Path;

use crate::event::ids::Tgid;

/// Libraries by the beginning of their file name.
const LIBRARIES: [(&str, &str); 6] = [
    ("libssl.so", "OpenSSL"),
    ("libssl-", "OpenSSL"),
    ("libboringssl", "BoringSSL"),
    ("libgnutls.so", "GnuTLS"),
    ("libnspr4.so", "NSS"),
    ("libwolfssl.so", "wolfSSL"),
];

/// The TLS library of a process and its file's name. Libraries that are linked statically are not
/// seen.
pub fn detect(proc: &Path, tgid: Tgid) -> Option<(&'static str, String)> {
    let maps = std::fs::read(proc.join(tgid.0.to_string()).join("maps")).ok()?;
    find(&String::from_utf8_lossy(&maps))
}

fn find(maps: &str) -> Option<(&'static str, String)> {
    maps.lines().find_map(|line| {
        // address perms offset dev inode path
        let file = line.split_whitespace().nth(5)?.rsplit('/').next()?;
        let (_, name) = LIBRARIES.iter().find(|(prefix, _)| file.starts_with(prefix))?;
        Some((*name, file.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_their_file() {
        let maps = "\
            55d0-55d1 r--p 00000000 fe:00 1 /usr/sbin/nginx\n\
            7f00-7f01 r--p 00000000 00:00 0 \n\
            7f02-7f03 r-xp 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n";
        assert_eq!(find(maps), Some(("OpenSSL", "libssl.so.3".to_owned())));
        assert_eq!(find("7f02-7f03 r-xp 00000000 fe:00 2 /lib/libc.so.6\n"), None);
        assert_eq!(find(""), None);
    }
}
