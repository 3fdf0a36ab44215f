//! Field offsets of kernel structs, and the numbers of functions and tracepoints, from BTF.
//!
//! A reader for the questions remora asks: where does `sock.__sk_common.skc_family` lie in this kernel,
//! and which of its types is a program attached to? Bytes in, numbers out; the format is `Documentation/bpf/btf.rst` of the kernel.
//! It refuses everything it does not need (line tables, other endianness).

use std::path::PathBuf;
use std::{fs, io};

/// Where the running kernel shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why an offset could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel has no readable BTF.
    #[error(
        "cannot read kernel types from {path}: remora needs a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not BTF of this machine's byte order.
    #[error("kernel types are malformed at byte {at}")]
    Malformed {
        /// Where reading stopped.
        at: usize,
    },
    /// No struct of this name.
    #[error("kernel has no struct `{name}`")]
    NoStruct {
        /// The name.
        name: &'static str,
    },
    /// A struct has no such member.
    #[error("kernel struct `{name}` has no member `{member}`")]
    NoMember {
        /// The struct.
        name: &'static str,
        /// The member's path.
        member: &'static str,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// The types of a kernel: several megabytes, to be dropped as soon as they have answered.
pub struct Btf {
    bytes: Vec<u8>,
    /// Byte position of each type record; type 0 is `void` and has none.
    types: Vec<u32>,
    strings: usize,
    structs: Vec<Named>,
    functions: Vec<Named>,
    typedefs: Vec<Named>,
}

/// A type that has a name.
#[derive(Clone, Copy)]
struct Named {
    /// Where the name lies among the strings.
    name: u32,
    id: u32,
}

impl Btf {
    /// Reads the running kernel's types.
    pub fn from_sys_fs() -> Result<Self, BtfError> {
        let path = PathBuf::from(VMLINUX);
        let bytes = fs::read(&path).map_err(|source| BtfError::Read { path, source })?;
        Self::parse(bytes)
    }

    /// Indexes the types in `bytes`.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let word = |at: usize| read_u32(&bytes, at).ok_or(BtfError::Malformed { at });
        let magic = word(0)? as u16;
        if magic != MAGIC {
            return Err(BtfError::Malformed { at: 0 });
        }
        let header = word(4)? as usize;
        let types_at = header.saturating_add(word(8)? as usize);
        let types_end = types_at.saturating_add(word(12)? as usize);
        let strings = header.saturating_add(word(16)? as usize);
        let (structs, functions, typedefs) = (Vec::new(), Vec::new(), Vec::new());
        let mut btf = Self { types: vec![0], structs, functions, typedefs, strings, bytes };
        let mut at = types_at;
        while at < types_end {
            let id = btf.types.len() as u32;
            let (name, kind, length) = btf.head(at)?;
            match kind {
                _ if name == 0 => {}
                KIND_STRUCT => btf.structs.push(Named { name, id }),
                KIND_FUNC => btf.functions.push(Named { name, id }),
                KIND_TYPEDEF => btf.typedefs.push(Named { name, id }),
                _ => {}
            }
            btf.types.push(at as u32);
            at += 12 + trailer(kind, length);
        }
        Ok(btf)
    }

    /// Byte offset of `member` (dots descend) in `struct name`.
    pub fn offset(&self, name: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoMember { name, member };
        let mut id = self.find(&self.structs, name).ok_or(BtfError::NoStruct { name })?;
        let mut bits = 0;
        for part in member.split('.') {
            let (offset, next) = self.member(id, part, 0).ok_or_else(missing)?;
            bits += offset;
            id = next;
        }
        Ok(bits / 8)
    }

    /// Number of the function `name`.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(&self.functions, name)
    }

    /// Number of what a program on the tracepoint `name` is attached to: the type of its function.
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.find(&self.typedefs, &format!("btf_trace_{name}"))
    }

    /// How many parameters the function `name` has; `None` if the kernel has no such function.
    pub fn parameters(&self, name: &str) -> Option<u32> {
        let at = *self.types.get(self.function(name)? as usize)? as usize;
        let prototype = read_u32(&self.bytes, at + 8)?;
        let prototype = *self.types.get(prototype as usize)? as usize;
        self.head(prototype).ok().map(|(_, _, parameters)| parameters)
    }

    /// The first of `among` that is called `name`. Looks for the name's place first, since comparing
    /// places is cheaper than comparing names.
    fn find(&self, among: &[Named], name: &str) -> Option<u32> {
        let strings = self.bytes.get(self.strings..).unwrap_or_default();
        let mut whole = Vec::with_capacity(name.len() + 2);
        whole.push(0);
        whole.extend_from_slice(name.as_bytes());
        whole.push(0);
        // Once, unless whoever wrote it has left out to join what is equal.
        let places = memchr::memmem::find_iter(strings, &whole).map(|at| at as u32 + 1);
        let ids = places.filter_map(|place| {
            among.iter().find(|named| named.name == place).map(|named| named.id)
        });
        ids.min()
    }

    /// Bit offset and type of a member, looked up through anonymous members too.
    fn member(&self, id: u32, wanted: &str, depth: u32) -> Option<(u32, u32)> {
        // C nests anonymous members a few deep; a cycle cannot occur in valid BTF.
        if depth > 8 {
            return None;
        }
        let at = *self.types.get(self.strip(id)? as usize)? as usize;
        let (_, kind, length) = self.head(at).ok()?;
        if kind != KIND_STRUCT && kind != KIND_UNION {
            return None;
        }
        let bitfields = read_u32(&self.bytes, at + 4)? >> 31 != 0;
        for index in 0..length as usize {
            let record = at + 12 + index * 12;
            let name = read_u32(&self.bytes, record)?;
            let target = read_u32(&self.bytes, record + 4)?;
            let raw = read_u32(&self.bytes, record + 8)?;
            let offset = if bitfields { raw & 0x00ff_ffff } else { raw };
            if name == 0 {
                if let Some((inner, found)) = self.member(target, wanted, depth + 1) {
                    return Some((offset + inner, found));
                }
            } else if self.string(name)? == wanted {
                return Some((offset, target));
            }
        }
        None
    }

    /// Skips typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..16 {
            let at = *self.types.get(id as usize)? as usize;
            let (_, kind, _) = self.head(at).ok()?;
            match kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = read_u32(&self.bytes, at + 8)?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// Name offset, kind and vlen of the record at `at`.
    fn head(&self, at: usize) -> Result<(u32, u32, u32), BtfError> {
        let malformed = || BtfError::Malformed { at };
        let name = read_u32(&self.bytes, at).ok_or_else(malformed)?;
        let info = read_u32(&self.bytes, at + 4).ok_or_else(malformed)?;
        Ok((name, (info >> 24) & 0x1f, info & 0xffff))
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let rest = self.bytes.get(self.strings + offset as usize..)?;
        let end = memchr::memchr(0, rest)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

/// Bytes behind the common twelve of a record.
fn trailer(kind: u32, length: u32) -> usize {
    let length = length as usize;
    match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => length * 12,
        KIND_ENUM | KIND_FUNC_PROTO => length * 8,
        _ => 0,
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_of_the_running_kernel() {
        let btf = Btf::from_sys_fs().expect("this kernel has BTF");
        assert_eq!(btf.offset("sock", "__sk_common.skc_daddr").ok(), Some(0));
        let rcv = btf.offset("sock", "__sk_common.skc_rcv_saddr").expect("field");
        assert_eq!(rcv, 4, "follows skc_daddr since Linux 3.9");
        assert!(btf.offset("tcp_sock", "write_seq").expect("field") > rcv);
        assert!(matches!(
            btf.offset("sock", "no_such_member"),
            Err(BtfError::NoMember { name: "sock", .. })
        ));
        assert_eq!(btf.parameters("tcp_sendmsg"), Some(3));
        assert_eq!(btf.parameters("no_such_function"), None);
        assert!(matches!(btf.offset("nonesuch", "x"), Err(BtfError::NoStruct { .. })));
    }

    #[test]
    fn refuses_what_is_not_btf() {
        assert!(matches!(Btf::parse(Vec::new()), Err(BtfError::Malformed { at: 0 })));
        assert!(matches!(Btf::parse(vec![7; 64]), Err(BtfError::Malformed { at: 0 })));
        let mut cut = fs::read(VMLINUX).expect("this kernel has BTF");
        cut.truncate(4096);
        assert!(matches!(Btf::parse(cut), Err(BtfError::Malformed { .. })));
    }
}
