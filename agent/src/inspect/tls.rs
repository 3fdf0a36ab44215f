//! Which TLS library a process has loaded, by the names of its mapped files.

use std::path::Path;

use crate::discover::maps::{self, Mapping};
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
    maps::of(proc, tgid).iter().filter_map(Mapping::name).find_map(library)
}

fn library(file: String) -> Option<(&'static str, String)> {
    let (_, name) = LIBRARIES.iter().find(|(prefix, _)| file.starts_with(prefix))?;
    Some((*name, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_their_file() {
        for (file, expected) in [
            ("libssl.so.3", Some("OpenSSL")),
            ("libgnutls.so.30", Some("GnuTLS")),
            ("libc.so.6", None),
            ("mylibssl.so.3", None),
            ("", None),
        ] {
            assert_eq!(library(file.to_owned()).map(|(name, _)| name), expected, "{file}");
        }
    }
}
