//! Java (HotSpot): `JVM_FillInStackTrace(JNIEnv *, jobject)`, which the constructor of every throwable
//! calls that has a stack trace. So it is the making of an exception that is seen, not its throwing, and
//! before it has been given its message.
//!
//! Where things lie in the virtual machine is in a table that it has for debuggers, `gHotSpotVMStructs`.
//! It is only filled in when the library is loaded, so the hook's code looks there whenever it is hit.

use agent_common::function::{Op, register};

use super::chunks::Chunks;
use super::code::Code;
use super::{Decode, NAME_MAX, Raised, Seen, Surroundings, data};
use crate::inspect::address::VirtAddr;

const NAME: u16 = 0;

/// Bytes of an entry (`VMStructEntry` of `vmStructs.hpp`): names of the type, the field and its type,
/// whether it is static, its offset, its address.
const ENTRY: u64 = 48;
const OFFSET: u64 = 32;
const ADDRESS: u64 = 40;

/// Most entries that are looked at.
const ENTRIES_MAX: u64 = 4096;

/// By how many bits references to classes may be shifted, 0 aside.
const SHIFTS: [i32; 4] = [3, 6, 8, 10];

pub(super) fn is_hook(name: &str) -> bool {
    name == "JVM_FillInStackTrace"
}

pub(super) fn code(seen: Surroundings<'_>) -> Option<(Vec<Op>, Decode)> {
    let table = Table::find(seen)?;
    let offset = |class, field| Some(VirtAddr(table.entry(class, field)?.0 + OFFSET));
    let address = |fields: [&str; 2]| {
        let entry =
            fields.iter().find_map(|field| table.entry("CompressedKlassPointers", field))?;
        seen.index.relocated(VirtAddr(entry.0 + ADDRESS))
    };
    let class = offset("oopDesc", "_metadata._compressed_klass")?;
    let base = address(["_narrow_klass._base", "_base"])?;
    let shift = address(["_narrow_klass._shift", "_shift"])?;
    let name = offset("Klass", "_name")?;
    let length = offset("Symbol", "_length")?;
    let body = offset("Symbol", "_body")?;
    let mut code = Code::default();
    let load = |code: &mut Code, from: VirtAddr, bytes| {
        let distance = from.0.wrapping_sub(seen.site.address.0).cast_signed();
        code.register(register::RIP).load(i32::try_from(distance).ok()?, bytes);
        Some(())
    };
    code.chunk(NAME);
    load(&mut code, class, 8)?;
    code.save(1).register(register::RSI).follow(0).add_slot(1).load(0, 4).save(0);
    load(&mut code, shift, 4)?;
    code.save(2);
    for bits in SHIFTS {
        code.recall(2);
        let other = code.jump_unless(bits);
        code.recall(0).shift_left(bits).save(0);
        code.land(other);
    }
    load(&mut code, base, 8)?;
    code.add_slot(0).save(0);
    load(&mut code, name, 8)?;
    code.add_slot(0).follow(0).save(0);
    load(&mut code, length, 8)?;
    code.add_slot(0).load(0, 2).save(1);
    load(&mut code, body, 8)?;
    code.add_slot(0).counted(1, NAME_MAX);
    Some((code.finish(), Decode::Java))
}

/// The table of fields.
struct Table<'a> {
    seen: Surroundings<'a>,
    start: VirtAddr,
}

impl<'a> Table<'a> {
    fn find(seen: Surroundings<'a>) -> Option<Self> {
        let pointer = data::symbol(seen.module, "gHotSpotVMStructs")?;
        Some(Self { seen, start: seen.index.relocated(pointer)? })
    }

    /// Where the entry of a field lies.
    fn entry(&self, class: &str, field: &str) -> Option<VirtAddr> {
        for number in 0..ENTRIES_MAX {
            let at = self.start.0 + ENTRY * number;
            // The last one has no names.
            let of = self.seen.index.relocated(VirtAddr(at))?;
            let name = self.seen.index.relocated(VirtAddr(at + 8))?;
            if self.says(of, class) && self.says(name, field) {
                return Some(VirtAddr(at));
            }
        }
        None
    }

    fn says(&self, at: VirtAddr, text: &str) -> bool {
        let bytes = self.seen.module.read(at, text.len() + 1).unwrap_or_default();
        bytes.split_last() == Some((&0, text.as_bytes()))
    }
}

pub(super) fn decode(chunks: Chunks<'_>) -> Option<Seen> {
    let name = chunks.name(NAME)?;
    // Whatever else it is, it is not the name of a class.
    let is_class = !name.contains(|c: char| c.is_whitespace() || matches!(c, '.' | ';' | '['));
    is_class.then(|| Seen::Raised(Raised::new(name.replace('/', "."), None)))
}

#[cfg(test)]
mod tests {
    use super::super::chunks::written;
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        let seen = |name: &[u8]| decode(Chunks(&written(&[(NAME, 0, name)])));
        let raised = Raised::new("java.lang.IllegalStateException", None);
        assert_eq!(seen(b"java/lang/IllegalStateException"), Some(Seen::Raised(raised)));
        assert_eq!(seen(b"no class"), None);
        assert_eq!(seen(b""), None);
    }
}
