//! What the eBPF object must and must not hold.

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol};

/// Checks an object: no panic path, nothing cold, a licence that the kernel's helpers accept.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    let file = object::File::parse(bytes).context("the eBPF object is no ELF file")?;
    for section in file.sections() {
        let name = section.name().unwrap_or_default();
        // aya-obj 0.3 finds functions by their offset alone: a second text section collides with
        // `.text`. rustc puts cold code, panics among it, into one.
        let cold = name.starts_with(".text.unlikely") || name.starts_with(".text.cold");
        if cold && section.size() > 0 {
            bail!("the eBPF object has code in `{name}`: look for a panic or #[cold]");
        }
    }
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        let panics = ["panicking", "panic_fmt", "panic_bounds", "unwrap_failed", "expect_failed"];
        if let Some(word) = panics.iter().find(|word| name.contains(**word)) {
            bail!("the eBPF object has a panic path: symbol `{name}` ({word})");
        }
    }
    let license = file.section_by_name("license").context("the eBPF object has no licence")?;
    let text = license.data().context("the licence cannot be read")?;
    ensure!(text == b"Dual MIT/GPL\0", "the licence is {:?}", String::from_utf8_lossy(text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(check(b"").is_err());
        // This program is ELF, but has no licence.
        let me = std::fs::read("/proc/self/exe").expect("it is running");
        let error = check(&me).expect_err("it is no eBPF object").to_string();
        assert!(error.contains("panic") || error.contains("licence") || error.contains("code in"));
    }
}
