//! What an executable or library asks of the dynamic loader: which libraries, and where they may lie.

use object::elf;

use super::elf::{Module, Section};

/// What a file asks for. Paths as the file has them, `$ORIGIN` and all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    /// What it calls itself (`DT_SONAME`).
    pub(crate) name: Option<String>,
    /// Libraries (`DT_NEEDED`), in their order.
    pub(crate) libraries: Vec<String>,
    /// Where it and what it needs look first (`DT_RPATH`); nothing if there is a `runpath`.
    pub(crate) rpath: Vec<String>,
    /// Where it looks itself (`DT_RUNPATH`).
    pub(crate) runpath: Vec<String>,
}

/// Most libraries that one file may need.
const LIBRARIES_MAX: usize = 512;

/// Most directories that it may name, and the longest name of any (`PATH_MAX`) and of all of them. Entries may
/// share their strings.
const DIRECTORIES_MAX: usize = 64;
const PATH_MAX: usize = 4096;
const PATHS_BYTES_MAX: usize = DIRECTORIES_MAX * PATH_MAX;

/// Most bytes that are read of entries and of strings.
const BYTES_MAX: u64 = 128 << 20;

impl Needed {
    /// Of a file; nothing of one that is linked for good.
    pub(crate) fn by(module: &Module) -> Self {
        let dynamic = module.sections().iter().find(|section| section.kind == elf::SHT_DYNAMIC.0);
        let Some(dynamic) = dynamic else { return Self::default() };
        let Some(strings) = module.sections().get(dynamic.link) else { return Self::default() };
        let bytes = |section: &Section| match section.size <= BYTES_MAX {
            true => module.section_bytes(section).ok(),
            false => None,
        };
        match (bytes(dynamic), bytes(strings)) {
            (Some(entries), Some(strings)) => Self::read(&entries, &strings),
            _ => Self::default(),
        }
    }

    /// From the entries of the section `.dynamic` (`Elf64_Dyn`: a tag and a value) and their strings.
    pub(crate) fn read(entries: &[u8], strings: &[u8]) -> Self {
        let mut needed = Self::default();
        let text = |at: u64, most: usize| {
            let text = strings.get(usize::try_from(at).ok()?..)?;
            let text = text.get(..most).unwrap_or(text);
            let end = text.iter().position(|byte| *byte == 0)?;
            let text = text.get(..end)?;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        let (words, _) = entries.as_chunks::<8>();
        let (pairs, _) = words.as_chunks::<2>();
        for [tag, value] in pairs {
            let (tag, value) = (i64::from_le_bytes(*tag), u64::from_le_bytes(*value));
            let split = |paths: Option<String>| {
                let paths = paths.unwrap_or_default();
                let paths = paths.split(':').filter(|path| !path.is_empty());
                paths.take(DIRECTORIES_MAX).map(str::to_owned).collect()
            };
            match tag {
                DT_NULL => break,
                DT_NEEDED if needed.libraries.len() < LIBRARIES_MAX => {
                    needed.libraries.extend(text(value, PATH_MAX).filter(|name| !name.is_empty()));
                }
                DT_SONAME => needed.name = text(value, PATH_MAX).filter(|name| !name.is_empty()),
                DT_RPATH => needed.rpath = split(text(value, PATHS_BYTES_MAX)),
                DT_RUNPATH => needed.runpath = split(text(value, PATHS_BYTES_MAX)),
                _ => {}
            }
        }
        if !needed.runpath.is_empty() {
            needed.rpath.clear();
        }
        needed
    }
}

// System V ABI, "Dynamic Section".
const DT_NULL: i64 = 0;
const DT_NEEDED: i64 = 1;
const DT_SONAME: i64 = 14;
const DT_RPATH: i64 = 15;
const DT_RUNPATH: i64 = 29;

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(entries: &[(i64, u64)]) -> Vec<u8> {
        let bytes =
            entries.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()]);
        bytes.flatten().collect()
    }

    #[test]
    fn what_a_file_asks_for_is_read() {
        let strings = b"\0liba.so\0libb.so.1\0/opt/x:$ORIGIN/../lib:\0";
        let both = entries(&[(1, 1), (1, 9), (29, 19), (15, 1), (0, 0), (1, 1)]);
        let needed = Needed::read(&both, strings);
        assert_eq!(needed.libraries, ["liba.so", "libb.so.1"]);
        assert_eq!(needed.runpath, ["/opt/x", "$ORIGIN/../lib"]);
        assert!(needed.rpath.is_empty(), "{needed:?}");
        assert_eq!(needed.name, None);
        assert_eq!(Needed::read(&entries(&[(14, 9)]), strings).name.as_deref(), Some("libb.so.1"));
        assert_eq!(Needed::read(&entries(&[(15, 1)]), strings).rpath, ["liba.so"]);
    }

    #[test]
    fn what_is_damaged_asks_for_nothing() {
        for (bytes, strings) in [
            (entries(&[(1, 99)]), &b"\0liba.so\0"[..]),
            (entries(&[(1, u64::MAX)]), b"\0liba.so\0"),
            (entries(&[(1, 1)]), b"\0no end"),
            (entries(&[(1, 0)]), b"\0"),
            (entries(&[(14, 0), (14, 77)]), b"\0"),
            (vec![1; 15], b"\0liba.so\0"),
        ] {
            assert_eq!(Needed::read(&bytes, strings), Needed::default(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_named_has_bounds() {
        let long = [b"\0".as_slice(), &[b'x'; PATH_MAX], b"\0"].concat();
        let needed = Needed::read(&entries(&[(1, 1), (1, 2)]), &long);
        assert_eq!(needed.libraries, ["x".repeat(PATH_MAX - 1)]);
        let many = [b"\0".as_slice(), &b"x:".repeat(1000), b"\0"].concat();
        for tag in [DT_RPATH, DT_RUNPATH] {
            let needed = Needed::read(&entries(&[(tag, 1)]), &many);
            assert_eq!(needed.rpath.len() + needed.runpath.len(), DIRECTORIES_MAX);
        }
        let needed = Needed::read(&entries(&vec![(1, 1); 1000]), b"\0x\0");
        assert_eq!(needed.libraries.len(), LIBRARIES_MAX);
    }

    #[test]
    fn this_test_needs_a_c_library() {
        let module = Module::open(std::path::Path::new("/proc/self/exe")).expect("it runs");
        let needed = Needed::by(&module);
        assert!(needed.libraries.iter().any(|name| name.starts_with("libc.")), "{needed:?}");
    }
}
