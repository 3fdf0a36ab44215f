//! Symbols of data, which the index of functions does not have.

use crate::inspect::address::VirtAddr;
use crate::inspect::elf::Module;

/// `SHN_UNDEF`: the symbol is another module's.
const UNDEFINED: u16 = 0;

/// Where a symbol of data lies.
pub(crate) fn symbol(module: &Module, name: &str) -> Option<VirtAddr> {
    [".symtab", ".dynsym"].iter().find_map(|section| find(module, section, name))
}

fn find(module: &Module, section: &str, name: &str) -> Option<VirtAddr> {
    let section = module.section(section)?;
    let strings = module.section_bytes(module.sections().get(section.link)?).ok()?;
    let symbols = module.section_bytes(section).ok()?;
    // An `Elf64_Sym`: name, info, other, section, value, size.
    symbols.as_chunks::<24>().0.iter().find_map(|symbol| {
        let [n0, n1, n2, n3, _, _, s0, s1, rest @ ..] = *symbol;
        let at = usize::try_from(u32::from_le_bytes([n0, n1, n2, n3])).ok()?;
        let behind = strings.get(at..)?.strip_prefix(name.as_bytes())?;
        let is_defined = u16::from_le_bytes([s0, s1]) != UNDEFINED;
        let value = u64::from_le_bytes(*rest.first_chunk()?);
        (is_defined && behind.first() == Some(&0)).then_some(VirtAddr(value))
    })
}
