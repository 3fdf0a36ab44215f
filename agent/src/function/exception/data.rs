//! Symbols of data, which the index of functions does not have.

use crate::inspect::address::VirtAddr;
use crate::inspect::elf::Module;

/// `SHN_UNDEF`: the symbol is another module's.
const UNDEFINED: u16 = 0;

/// Where a symbol of data lies.
pub(crate) fn symbol(module: &Module, name: &str) -> Option<VirtAddr> {
    symbols(module, &[name]).pop().flatten()
}

/// Where symbols of data lie, each where one that was asked for does.
pub(crate) fn symbols(module: &Module, names: &[&str]) -> Vec<Option<VirtAddr>> {
    let mut found = vec![None; names.len()];
    for section in [".symtab", ".dynsym"] {
        if found.contains(&None) {
            find(module, section, names, &mut found);
        }
    }
    found
}

fn find(
    module: &Module,
    section: &str,
    names: &[&str],
    found: &mut [Option<VirtAddr>],
) -> Option<()> {
    let section = module.section(section)?;
    let strings = module.section_bytes(module.sections().get(section.link)?).ok()?;
    let symbols = module.section_bytes(section).ok()?;
    // An `Elf64_Sym`: name, info, other, section, value, size.
    for symbol in symbols.as_chunks::<24>().0 {
        let [n0, n1, n2, n3, _, _, s0, s1, rest @ ..] = *symbol;
        let at = usize::try_from(u32::from_le_bytes([n0, n1, n2, n3])).ok()?;
        let is_defined = u16::from_le_bytes([s0, s1]) != UNDEFINED;
        let Some(name) = strings.get(at..).filter(|_| is_defined) else { continue };
        let is_it = |known: &&str| {
            name.strip_prefix(known.as_bytes()).is_some_and(|behind| behind.first() == Some(&0))
        };
        if let Some(place) = names.iter().position(is_it)
            && let Some(slot @ None) = found.get_mut(place)
        {
            *slot = Some(VirtAddr(u64::from_le_bytes(*rest.first_chunk()?)));
            if !found.contains(&None) {
                break;
            }
        }
    }
    Some(())
}
