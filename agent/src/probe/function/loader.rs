//! Loads the object with the program for function probes: makes its maps, or takes those that the
//! capture programs have, too, and hands the program to the kernel.
//!
//! aya would do all of it, but loads no program for uprobe_multi links.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::maps::{MapData, MapError};
use aya_obj::{EbpfSectionKind, Object};

use super::FunctionError;
use super::bpf::{self, Attach, Load, Records};
use super::link;
use crate::probe::capture::Shared;

/// The object, built by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REMORA_FUNCTIONS_OBJECT"));

/// The program's name.
pub(super) const PROGRAM: &str = "function_hit";

/// The program and its maps.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) program: OwnedFd,
    pub(super) attach: Attach,
    maps: HashMap<String, MapData>,
}

impl Loaded {
    /// One of the object's own maps.
    pub(super) fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, FunctionError> {
        let map = self.maps.get(name).ok_or(FunctionError::NoObject)?;
        Ok(map.fd().as_fd())
    }

    /// Takes one of the object's own maps out.
    pub(super) fn take(&mut self, name: &'static str) -> Result<MapData, FunctionError> {
        self.maps.remove(name).ok_or(FunctionError::NoObject)
    }
}

/// Loads the program for links of many places, or for single ones where the kernel has no such links.
/// `entries` says how large maps are; of those in `shared` none are made.
pub(super) fn load(
    shared: &Shared,
    entries: &[(&'static str, u32)],
) -> Result<Loaded, FunctionError> {
    if OBJECT.is_empty() {
        return Err(FunctionError::NoObject);
    }
    let mut object = Object::parse(OBJECT).map_err(misfit)?;
    let wake_bytes = shared.wake_bytes.to_ne_bytes();
    let offsets: Vec<u8> = shared.offsets.iter().flat_map(|offset| offset.to_ne_bytes()).collect();
    let globals = HashMap::from([
        ("OFFSETS", (offsets.as_slice(), true)),
        ("WAKE_BYTES", (wake_bytes.as_slice(), true)),
    ]);
    object.patch_map_data(globals).map_err(misfit)?;
    let features = aya::features().btf().ok_or(FunctionError::NoTypes)?;
    let types = object.fixup_and_sanitize_btf(features).map_err(misfit)?;
    let types = types.ok_or(FunctionError::NoTypes)?.to_bytes();
    let types = bpf::load_btf(&types).map_err(FunctionError::Types)?;

    let maps = maps(&mut object, shared, entries, types.as_fd())?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let fds = maps.iter().map(|(name, (map, fd))| (name.as_str(), fd.number(), map));
    object.relocate_maps(fds, &text).map_err(misfit)?;
    object.relocate_calls(&text).map_err(misfit)?;
    let (program, attach) = program(&object, types.as_fd())?;
    let own = maps.into_iter().filter_map(|(name, (_, fd))| match fd {
        Fd::Own(map) => Some((name, map)),
        Fd::Shared(_) => None,
    });
    Ok(Loaded { program, attach, maps: own.collect() })
}

fn misfit(source: impl std::error::Error + Send + Sync + 'static) -> FunctionError {
    FunctionError::Parse(Box::new(source))
}

/// Whose map it is.
enum Fd<'a> {
    Own(MapData),
    Shared(BorrowedFd<'a>),
}

impl Fd<'_> {
    fn number(&self) -> i32 {
        match self {
            Self::Own(map) => map.fd().as_fd().as_raw_fd(),
            Self::Shared(fd) => fd.as_raw_fd(),
        }
    }
}

type Maps<'a> = HashMap<String, (aya_obj::Map, Fd<'a>)>;

fn maps<'a>(
    object: &mut Object,
    shared: &'a Shared,
    entries: &[(&'static str, u32)],
    types: BorrowedFd<'_>,
) -> Result<Maps<'a>, FunctionError> {
    let refused = |map: &str, source: MapError| FunctionError::Map {
        map: map.to_owned(),
        source: io::Error::other(source),
    };
    let mut maps = HashMap::new();
    for (name, mut map) in object.maps.drain() {
        if let Some((_, fd)) = shared.maps.iter().find(|(shared, _)| *shared == name) {
            maps.insert(name, (map, Fd::Shared(fd.as_fd())));
            continue;
        }
        if let Some((_, count)) = entries.iter().find(|(known, _)| *known == name) {
            map.set_max_entries(*count);
        }
        let own = MapData::create(map.clone(), &name, Some(types));
        let own = own.map_err(|source| refused(&name, source))?;
        if map.section_kind() == EbpfSectionKind::Rodata {
            let fd = own.fd().as_fd();
            let written = bpf::update(fd, &0u32, map.data()).and_then(|()| bpf::freeze(fd));
            written.map_err(|source| FunctionError::Map { map: name.clone(), source })?;
        }
        maps.insert(name, (map, Fd::Own(own)));
    }
    Ok(maps)
}

fn program(object: &Object, types: BorrowedFd<'_>) -> Result<(OwnedFd, Attach), FunctionError> {
    let found = object.programs.get(PROGRAM).ok_or(FunctionError::NoObject)?;
    let function = object.functions.get(&found.function_key()).ok_or(FunctionError::NoObject)?;
    let instructions: Vec<u8> = function.instructions.iter().flat_map(bytes_of).collect();
    let functions = function.func_info.func_info_bytes();
    let lines = function.line_info.line_info_bytes();
    let license: &CStr = &found.license;
    let load = |attach| {
        bpf::load(&Load {
            name: PROGRAM,
            attach,
            instructions: &instructions,
            license,
            types: Some(types),
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
        })
    };
    // Before Linux 6.6 there is no such way to attach. Some kernels load the program all the same.
    match load(Attach::Multi) {
        Ok(program) if link::takes_multi(program.as_fd()) => Ok((program, Attach::Multi)),
        first => match (load(Attach::Perf), first) {
            (Ok(program), _) => Ok((program, Attach::Perf)),
            (Err(_), Err((source, log))) | (Err((source, log)), Ok(_)) => {
                Err(FunctionError::Program { source, log })
            }
        },
    }
}

/// An instruction as the kernel takes it (`struct bpf_insn`).
fn bytes_of(instruction: &aya_obj::generated::bpf_insn) -> [u8; 8] {
    let [off_low, off_high] = instruction.off.to_ne_bytes();
    let [a, b, c, d] = instruction.imm.to_ne_bytes();
    // The target register is the lower half.
    let registers = instruction.dst_reg() | (instruction.src_reg() << 4);
    [instruction.code, registers, off_low, off_high, a, b, c, d]
}
