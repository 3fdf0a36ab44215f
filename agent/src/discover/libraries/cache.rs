//! `/etc/ld.so.cache`: where ldconfig(8) has found which library. The format that glibc writes since 2.32
//! (its `dl-cache.h`: "glibc-ld.so.cache1.1", every number in the machine's order).

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::inspect::regular;

/// Most bytes that are read of one, and most that are kept of its strings, which may lie within each other.
const BYTES_MAX: u64 = 16 << 20;
pub(crate) const KEPT_MAX: usize = 16 << 20;

/// Longest name or path (`PATH_MAX`).
const PATH_MAX: usize = 4096;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;

/// An entry: flags, places of name and path, the system's version, processor features.
const ENTRY: usize = 24;

/// A library of glibc's for x86-64 (`FLAG_ELF_LIBC6`, `FLAG_X8664_LIB64`).
const FLAGS: u32 = 0x0303;

/// Paths by name.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<String, Vec<String>>);

impl Cache {
    /// Bytes of its strings.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn kept(&self) -> usize {
        let paths = |paths: &Vec<String>| paths.iter().map(String::len).sum::<usize>();
        self.0.iter().map(|(name, known)| name.len() + paths(known)).sum()
    }

    /// Where a library of this name is, the likeliest first.
    pub(super) fn paths(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }
}

/// The one below a root; an empty one if there is none that can be read.
pub(super) fn read(root: &Path) -> Cache {
    let mut bytes = Vec::new();
    // A container's is what it likes.
    let file = regular::must_open(&root.join("etc/ld.so.cache"));
    let read = file.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => parse(&bytes),
        Err(_) => Cache::default(),
    }
}

pub(super) fn parse(bytes: &[u8]) -> Cache {
    let mut cache = Cache::default();
    if !bytes.starts_with(MAGIC) {
        return cache;
    }
    let number = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let text = |at: u32| {
        let text = bytes.get(at as usize..)?;
        let text = text.get(..PATH_MAX).unwrap_or(text);
        let end = text.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(text.get(..end)?).into_owned())
    };
    let count = number(MAGIC.len()).unwrap_or_default() as usize;
    let rest = bytes.get(HEADER..).unwrap_or_default();
    let mut kept = 0;
    for index in 0..count.min(rest.len() / ENTRY) {
        let at = HEADER + index * ENTRY;
        let [flags, name, path] = [0, 4, 8].map(|field| number(at + field));
        if let (Some(FLAGS), Some(name), Some(path)) =
            (flags, name.and_then(text), path.and_then(text))
        {
            kept += name.len() + path.len() + size_of::<(String, Vec<String>, String)>();
            if kept > KEPT_MAX {
                break;
            }
            cache.0.entry(name).or_default().push(path);
        }
    }
    cache
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(u32, u32, u32)], strings: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((entries.len() as u32).to_ne_bytes());
        bytes.resize(HEADER, 0);
        let start = (HEADER + entries.len() * ENTRY) as u32;
        for (flags, name, path) in entries {
            for word in [*flags, start + name, start + path, 0, 0, 0] {
                bytes.extend(word.to_ne_bytes());
            }
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn entries_are_read() {
        let strings = b"liba.so\0/lib/liba.so\0/lib32/liba.so\0";
        let bytes = cache(&[(0x0303, 0, 8), (0x0003, 0, 21)], strings);
        let parsed = parse(&bytes);
        assert_eq!(parsed.paths("liba.so").collect::<Vec<_>>(), ["/lib/liba.so"]);
        assert_eq!(parsed.paths("libb.so").count(), 0);
        // Whatever is cut off is not there.
        for length in 0..bytes.len() {
            let paths: Vec<_> =
                parse(&bytes[..length]).paths("liba.so").map(str::to_owned).collect();
            assert!(paths.is_empty() || paths == ["/lib/liba.so"], "{length}: {paths:?}");
        }
    }

    #[test]
    fn hostile_counts_and_places_are_nothing() {
        let mut bytes = cache(&[(0x0303, u32::MAX - 200, 8)], b"x\0");
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse(&bytes).0.is_empty());
    }

    #[test]
    fn no_more_is_kept_than_there_is() {
        // Each path is the rest of the one before.
        let mut strings = b"x\0".to_vec();
        strings.extend([b'/'; PATH_MAX]);
        strings.push(0);
        let entries: Vec<_> = (0..20_000).map(|n| (0x0303, 0, 3 + n % 1000)).collect();
        let parsed = parse(&cache(&entries, &strings));
        let kept: usize = parsed.paths("x").map(str::len).sum();
        assert!((KEPT_MAX / 2..=KEPT_MAX).contains(&kept), "{kept}");
        // One that is too long is none.
        let parsed = parse(&cache(&[(0x0303, 0, 2)], &strings));
        assert_eq!(parsed.paths("x").count(), 0);
    }
}
