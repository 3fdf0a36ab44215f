//! What a process has mapped: the lines of `/proc/PID/maps`, read once here for all who ask.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

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

    /// Where in memory a part of its file is, as far as it is mapped here.
    pub(crate) fn addresses_of(&self, part: &Range<u64>) -> Option<Range<u64>> {
        let length = self.addresses.end.checked_sub(self.addresses.start)?;
        let from = part.start.max(self.offset);
        let to = part.end.min(self.offset.checked_add(length)?);
        let address = |offset: u64| Some(self.addresses.start + offset.checked_sub(self.offset)?);
        (from < to).then_some(address(from)?..address(to)?)
    }
}

/// What a process has mapped; nothing if it is gone.
pub(crate) fn of(proc: &Path, tgid: Tgid) -> Vec<Mapping> {
    let maps = fs::read(proc.join(tgid.0.to_string()).join("maps")).unwrap_or_default();
    String::from_utf8_lossy(&maps).lines().filter_map(mapping).collect()
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
    fn parts_of_a_file_are_found_in_memory() {
        let mapping =
            mapping("5000-9000 r--p 00002000 fe:00 1234 /usr/bin/program").expect("a line");
        for (part, expected) in [
            (0x2000..0x3000, Some(0x5000..0x6000)),
            (0x1000..0x2800, Some(0x5000..0x5800)),
            (0x5800..0x9000, Some(0x8800..0x9000)),
            (0x0000..0x2000, None),
            (0x6000..0x7000, None),
        ] {
            assert_eq!(mapping.addresses_of(&part), expected);
        }
        let reversed = Mapping { addresses: Range { start: 0x9000, end: 0x5000 }, ..mapping };
        assert_eq!(reversed.addresses_of(&(0..u64::MAX)), None);
    }

    #[test]
    fn a_file_that_is_gone_keeps_its_name() {
        assert_eq!(file_name(Path::new("/usr/bin/a (deleted)")), "a");
        assert_eq!(file_name(Path::new("/")), "");
    }
}
