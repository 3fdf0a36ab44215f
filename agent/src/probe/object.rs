//! Brings an eBPF object into the kernel: makes its maps, or takes those of another object that has them,
//! too, and hands its programs over one by one. Which are wanted, and where they go, others decide.
//!
//! aya would do so, but reads all of the kernel's types to do it, several times, and loads no program for
//! uprobe_multi links. Parsing and relocating is left to aya's parser.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::EbpfSectionKind;
use aya_obj::btf::BtfFeatures;

use super::bpf::program::{self, Kind, Load, Records, Refused};
use super::bpf::{self, NewMap, Plain};
use super::map::{Map, PerCpuArray, Shape};

/// Why an object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The binary was built by plain `cargo build`, or by a build of something else.
    #[error("this binary holds no eBPF object: build it with `cargo xtask build`")]
    Missing,
    /// The object does not fit the loader.
    #[error("cannot read the eBPF object")]
    Parse(#[source] Box<dyn Error + Send + Sync>),
    /// The kernel refused the object's types.
    #[error("cannot load the types of the eBPF object")]
    Types(#[source] io::Error),
    /// A map could not be made.
    #[error("cannot make map `{map}`")]
    Map {
        /// The map.
        map: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program was refused.
    #[error("cannot load program `{program}`")]
    Program {
        /// The program.
        program: &'static str,
        /// What the kernel and its verifier said.
        #[source]
        source: Refused,
    },
}

/// Bytes that begin as their reader, which looks at words of eight, needs them to.
#[repr(C, align(8))]
pub(super) struct Aligned<T: ?Sized>(pub(super) T);

/// Words as they lie in memory.
pub(super) fn bytes_of_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// How an object is to be loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes<'a> {
    /// Values of read-only data, by symbol.
    pub(super) globals: &'a [(&'static str, &'a [u8])],
    /// How large maps are, where it is not as the object says.
    pub(super) entries: &'a [(&'static str, u32)],
    /// Maps that are there and not made.
    pub(super) shared: &'a [(&'static str, OwnedFd)],
}

/// An object whose maps are made.
#[derive(Debug)]
pub(super) struct Object {
    object: aya_obj::Object,
    types: OwnedFd,
    pub(super) maps: Maps,
}

/// The maps of an object, by name.
#[derive(Debug)]
pub(super) struct Maps(HashMap<String, (OwnedFd, Shape)>);

impl Maps {
    /// One of them.
    pub(super) fn fd(&self, name: &str) -> Result<BorrowedFd<'_>, ObjectError> {
        let (fd, _) = self.0.get(name).ok_or(ObjectError::Missing)?;
        Ok(fd.as_fd())
    }

    /// Takes one out, with its number of entries.
    pub(super) fn take(&mut self, name: &str) -> Result<(OwnedFd, u32), ObjectError> {
        let (fd, shape) = self.0.remove(name).ok_or(ObjectError::Missing)?;
        Ok((fd, shape.entries))
    }

    /// Takes one out that has these keys and values.
    pub(super) fn take_typed<K: Plain + Default, V: Plain + Default>(
        &mut self,
        name: &str,
    ) -> Result<Map<K, V>, ObjectError> {
        let (fd, shape) = self.0.remove(name).ok_or(ObjectError::Missing)?;
        Map::new(fd, shape).ok_or(ObjectError::Missing)
    }

    /// Takes one out that has words for each CPU.
    pub(super) fn take_per_cpu(
        &mut self,
        name: &str,
        cpus: usize,
    ) -> Result<PerCpuArray, ObjectError> {
        let (fd, shape) = self.0.remove(name).ok_or(ObjectError::Missing)?;
        PerCpuArray::new(fd, shape, cpus).ok_or(ObjectError::Missing)
    }
}

impl Object {
    /// Makes the maps of the object in `bytes`.
    pub(super) fn load(bytes: &[u8], wishes: &Wishes<'_>) -> Result<Self, ObjectError> {
        if bytes.is_empty() {
            return Err(ObjectError::Missing);
        }
        let mut object = aya_obj::Object::parse(bytes).map_err(misfit)?;
        let globals = wishes.globals.iter().map(|(name, value)| (*name, (*value, true)));
        object.patch_map_data(globals.collect()).map_err(misfit)?;
        let types = types(&mut object)?;
        let made = maps(&mut object, wishes, types.as_fd())?;
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let fds = made.iter().map(|(name, (map, fd))| (name.as_str(), fd.as_raw_fd(), map));
        object.relocate_maps(fds, &text).map_err(misfit)?;
        object.relocate_calls(&text).map_err(misfit)?;
        let maps = made.into_iter().map(|(name, (map, fd))| (name, (fd, shape(&map))));
        Ok(Self { object, types, maps: Maps(maps.collect()) })
    }

    /// Hands one of its programs to the kernel.
    pub(super) fn program(&self, name: &'static str, kind: Kind) -> Result<OwnedFd, ObjectError> {
        let found = self.object.programs.get(name).ok_or(ObjectError::Missing)?;
        let function = self.object.functions.get(&found.function_key());
        let function = function.ok_or(ObjectError::Missing)?;
        let instructions: Vec<u8> = function.instructions.iter().flat_map(bytes_of).collect();
        let functions = function.func_info.func_info_bytes();
        let lines = function.line_info.line_info_bytes();
        let load = Load {
            name,
            kind,
            instructions: &instructions,
            license: &found.license,
            types: Some(self.types.as_fd()),
            functions: Records {
                bytes: &functions,
                size: function.func_info_rec_size,
                count: function.func_info.len(),
            },
            lines: Records {
                bytes: &lines,
                size: function.line_info_rec_size,
                count: function.line_info.len(),
            },
        };
        program::load(&load).map_err(|source| ObjectError::Program { program: name, source })
    }
}

fn misfit(source: impl Error + Send + Sync + 'static) -> ObjectError {
    ObjectError::Parse(Box::new(source))
}

/// What kernels know of types, the newest first: all that a compiler writes (6.0), and what Linux 5.8
/// knows, for which the rest is made into something else.
const FEATURES: [BtfFeatures; 2] = [
    BtfFeatures::new(true, true, true, true, true, true, true, true),
    BtfFeatures::new(true, true, true, false, false, false, false, false),
];

/// Loads the object's types, as new as the kernel takes them.
fn types(object: &mut aya_obj::Object) -> Result<OwnedFd, ObjectError> {
    let mut refused = None;
    for features in FEATURES {
        match program::load_types(&types_in(object, &features)?) {
            Ok(fd) => return Ok(fd),
            // What the newest way was refused for tells more.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.map_or(ObjectError::Missing, ObjectError::Types))
}

fn types_in(object: &mut aya_obj::Object, features: &BtfFeatures) -> Result<Vec<u8>, ObjectError> {
    let types = object.fixup_and_sanitize_btf(features).map_err(misfit)?;
    Ok(types.ok_or(ObjectError::Missing)?.to_bytes())
}

type Made = HashMap<String, (aya_obj::Map, OwnedFd)>;

fn maps(
    object: &mut aya_obj::Object,
    wishes: &Wishes<'_>,
    types: BorrowedFd<'_>,
) -> Result<Made, ObjectError> {
    let mut made = HashMap::new();
    for (name, mut map) in object.maps.drain() {
        if let Some((_, count)) = wishes.entries.iter().find(|(known, _)| *known == name) {
            map.set_max_entries(*count);
        }
        let shared = wishes.shared.iter().find(|(shared, _)| *shared == name);
        let fd = match shared {
            Some((_, fd)) => fd.try_clone(),
            None => create(&name, &map, types),
        };
        let fd = fd.map_err(|source| ObjectError::Map { map: name.clone(), source })?;
        made.insert(name, (map, fd));
    }
    Ok(made)
}

/// Makes a map and fills it, if it holds global data.
fn create(name: &str, map: &aya_obj::Map, types: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let Shape { key_bytes, value_bytes, entries } = shape(map);
    let types = match map {
        aya_obj::Map::Btf(map) => Some((types, map.def.btf_key_type_id, map.def.btf_value_type_id)),
        aya_obj::Map::Legacy(_) => None,
    };
    let (kind, flags) = (map.map_type(), map.map_flags());
    let fd = bpf::create(&NewMap { name, kind, key_bytes, value_bytes, entries, flags, types })?;
    let holds_data = matches!(
        map.section_kind(),
        EbpfSectionKind::Rodata | EbpfSectionKind::Data | EbpfSectionKind::Bss
    );
    if holds_data {
        bpf::update(fd.as_fd(), &0u32, map.data())?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        bpf::freeze(fd.as_fd())?;
    }
    Ok(fd)
}

fn shape(map: &aya_obj::Map) -> Shape {
    Shape { key_bytes: map.key_size(), value_bytes: map.value_size(), entries: map.max_entries() }
}

/// An instruction as the kernel takes it (`struct bpf_insn`).
fn bytes_of(instruction: &aya_obj::generated::bpf_insn) -> [u8; 8] {
    let [off_low, off_high] = instruction.off.to_ne_bytes();
    let [a, b, c, d] = instruction.imm.to_ne_bytes();
    // The target register is the lower half.
    let registers = instruction.dst_reg() | (instruction.src_reg() << 4);
    [instruction.code, registers, off_low, off_high, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::privileges;

    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("REMORA_FUNCTIONS_OBJECT")));

    /// Whether there is an object, and the right to load it.
    fn is_able() -> bool {
        let able = !OBJECT.0.is_empty() && privileges::check().is_ok();
        if !able {
            println!("skipped: needs root, and an object of `cargo xtask build`");
        }
        able
    }

    #[test]
    fn types_load_as_any_kernel_knows_them() {
        if !is_able() {
            return;
        }
        for features in FEATURES {
            let mut object = aya_obj::Object::parse(&OBJECT.0).expect("it is our own");
            let types = types_in(&mut object, &features).expect("it has types");
            program::load_types(&types).expect("the kernel takes them");
            // As after a first try that was refused.
            let again = types_in(&mut object, &FEATURES[1]).expect("it has types");
            program::load_types(&again).expect("the kernel takes them");
        }
    }

    #[test]
    fn a_refused_program_comes_with_what_the_verifier_said() {
        if !is_able() {
            return;
        }
        let entries = [("EVENTS", 1 << 16)];
        let wishes = Wishes { entries: &entries, ..Wishes::default() };
        let object = Object::load(&OBJECT.0, &wishes).expect("its maps are made");
        // Nobody has said where fields lie, and nothing that it wants is at the beginning.
        let error =
            object.program("function_hit", Kind::Uprobe).expect_err("it looks at the wrong place");
        let ObjectError::Program { source, .. } = error else { panic!("{error}") };
        let log = &source.log;
        assert_eq!(source.error.raw_os_error(), Some(libc::EACCES));
        assert!(log.contains("processed ") && log.contains(" insns"), "{log}");
        let said = source.to_string();
        assert!(said.contains("Permission denied") && said.ends_with(log.as_str()), "{said}");
    }
}
