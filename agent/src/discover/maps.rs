//! What a process has mapped: the lines of `/proc/PID/maps`, read once here for all who ask.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::process;
use crate::event::ids::Tgid;

/// A part of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Where it is.
    pub(crate) addresses: Range<u64>,
    pub(crate) is_executable: bool,
    /// Where in its file it begins.
    pub(crate) offset: u64,
    /// Its file, whatever its name.
    pub(crate) inode: Inode,
    /// Its file as the process calls it, if it has one.
    pub(crate) path: Option<PathBuf>,
}

/// A file, as the kernel tells it from others here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    major: u32,
    minor: u32,
    number: u64,
}

impl Mapping {
    /// A link to its file, whatever has become of that file's name.
    pub(crate) fn file(&self, proc: &Path, tgid: Tgid) -> PathBuf {
        let Range { start, end } = self.addresses;
        proc.join(tgid.0.to_string()).join("map_files").join(format!("{start:x}-{end:x}"))
    }

    /// The name of its file; without what the kernel says of one that is gone.
    pub(crate) fn name(&self) -> Option<String> {
        self.path.as_deref().map(file_name)
    }

    /// Where an address is in its file, if it is in this.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        let within = self.addresses.contains(&address).then(|| address - self.addresses.start)?;
        self.offset.checked_add(within)
    }
}

/// Most bytes that are read of what a process has mapped: it may map the file of a long name as often as the
/// system lets it.
const BYTES_MAX: u64 = 64 << 20;

/// What a process has mapped; nothing if it is gone.
pub(crate) fn of(proc: &Path, tgid: Tgid) -> Vec<Mapping> {
    let mut maps = Vec::new();
    let file = File::open(process::directory(proc, tgid).join("maps"));
    match file.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut maps)) {
        Ok(_) => parse(&maps),
        Err(_) => Vec::new(),
    }
}

/// The lines that can be read. The kernel writes ends of lines in names otherwise.
pub(crate) fn parse(maps: &[u8]) -> Vec<Mapping> {
    String::from_utf8_lossy(maps).lines().filter_map(mapping).collect()
}

/// The file name of a path; without what the kernel says of a file that is gone.
pub(crate) fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned()
}

/// A line: `address perms offset dev inode path` (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = behind.trim_start();
        field
    };
    let (start, end) = field().split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let addresses = number(start)?..number(end)?;
    let is_executable = field().contains('x');
    let offset = number(field())?;
    let (major, minor) = field().split_once(':')?;
    let device = |text| u32::from_str_radix(text, 16).ok();
    let number = field().parse().ok()?;
    let inode = Inode { major: device(major)?, minor: device(minor)?, number };
    // A name may have spaces in it; what has no file may have a name in brackets.
    let path = rest.starts_with('/').then(|| PathBuf::from(rest));
    Some(Mapping { addresses, is_executable, offset, inode, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        for (line, path, is_executable) in [
            (
                "5000-9000 r-xp 00002000 fe:00 1234       /usr/bin/a program",
                Some("/usr/bin/a program"),
                true,
            ),
            (
                "5000-9000 r--p 00002000 fe:00 1234 /lib/x.so (deleted)",
                Some("/lib/x.so (deleted)"),
                false,
            ),
            ("5000-9000 rw-p 00002000 00:00 0 ", None, false),
            ("5000-9000 r-xp 00002000 00:00 0                          [vdso]", None, true),
        ] {
            let expected = Mapping {
                addresses: 0x5000..0x9000,
                is_executable,
                offset: 0x2000,
                inode: match line.contains("1234") {
                    true => Inode { major: 0xfe, minor: 0, number: 1234 },
                    false => Inode::default(),
                },
                path: path.map(PathBuf::from),
            };
            assert_eq!(mapping(line), Some(expected), "{line}");
        }
        for line in ["", "5000", "x-y r--p 0 0 0", "5000-9000 r--p"] {
            assert_eq!(mapping(line), None, "{line}");
        }
    }

    #[test]
    fn addresses_are_places_of_the_file() {
        let mapping =
            mapping("5000-9000 r--p 00002000 fe:00 1234 /usr/bin/program").expect("a line");
        for (address, expected) in
            [(0x5000, Some(0x2000)), (0x8fff, Some(0x5fff)), (0x4fff, None), (0x9000, None)]
        {
            assert_eq!(mapping.offset_of(address), expected, "{address:#x}");
        }
        let last = Mapping { offset: u64::MAX, ..mapping };
        assert_eq!(last.offset_of(0x5001), None);
    }

    #[test]
    fn a_file_that_is_gone_keeps_its_name() {
        assert_eq!(file_name(Path::new("/usr/bin/a (deleted)")), "a");
        assert_eq!(file_name(Path::new("/")), "");
    }
}
