//! Real files and damaged ones.

use std::fs::OpenOptions;
use std::path::PathBuf;

use super::*;

fn own() -> Module {
    Module::open(Path::new("/proc/self/exe")).expect("our own program")
}

fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("remora-elf-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).expect("a file");
    path
}

#[test]
fn our_own_program_is_read() {
    let module = own();
    let text = module.section(".text").expect("code").clone();
    assert!(text.is_code() && text.holds(text.address));
    let offset = module.code_offset(text.address).expect("code is in the file");
    assert_eq!(offset, text.offset);
    assert_eq!(module.code_address(offset), Some(text.address));
    assert_eq!(module.file_offset(text.address), Some(offset));
    let bytes = module.read(text.address, 16).expect("bytes");
    assert_eq!(bytes, module.section_bytes(&text).expect("all")[..16]);
    // Data is no place for a probe.
    let data = module.section(".rodata").expect("constants").address;
    assert_eq!(module.code_offset(data), None);
    assert_eq!(module.code_offset(VirtAddr(u64::MAX)), None);
    assert!(module.read(VirtAddr(u64::MAX), 16).expect("nothing").is_empty());
    assert!(module.is_same_file(&own()));
}

#[test]
fn other_files_are_refused() {
    let cases: [(&str, &[u8], &str); 4] = [
        ("text", b"#!/bin/sh\n", "is no ELF file"),
        ("empty", b"", "is no ELF file"),
        ("narrow", b"\x7fELF\x01\x01\x01", "another processor (32-bit)"),
        ("cut", b"\x7fELF\x02\x01\x01", "is no ELF file"),
    ];
    for (name, bytes, part) in cases {
        let path = scratch(name, bytes);
        let error = Module::open(&path).expect_err(name).to_string();
        std::fs::remove_file(&path).expect("it was there");
        assert!(error.contains(part), "{name}: {error}");
    }
    let error = |path| Module::open(Path::new(path)).expect_err(path).to_string();
    assert!(error("/dev/null").contains("is no regular file"));
    assert!(error("/proc/self/fd").contains("is no regular file"));
    assert!(error("/nowhere/at/all").contains("cannot open"));
}

#[test]
fn another_processor_is_named() {
    let mut bytes = std::fs::read("/proc/self/exe").expect("our own program");
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    let path = scratch("arm", &bytes[..4096]);
    let error = Module::open(&path).expect_err("for ARM").to_string();
    std::fs::remove_file(&path).expect("it was there");
    assert!(error.contains("another processor (AArch64)"), "{error}");
}

#[test]
fn a_file_that_is_cut_under_us_gives_an_error() {
    let bytes = std::fs::read("/proc/self/exe").expect("our own program");
    let path = scratch("shrinks", &bytes);
    let module = Module::open(&path).expect("whole");
    let text = module.section(".text").expect("code").clone();
    let file = OpenOptions::new().write(true).open(&path).expect("ours");
    file.set_len(text.offset.0 + 8).expect("cut");
    let error = module.section_bytes(&text).expect_err("cut");
    std::fs::remove_file(&path).expect("it was there");
    assert!(matches!(error, ElfError::Read { source, .. }
        if source.kind() == io::ErrorKind::UnexpectedEof));
}

/// A file with holes is as long as whoever made it likes, and takes no room.
#[test]
fn a_hole_takes_no_memory() {
    let mut bytes = std::fs::read("/proc/self/exe").expect("our own program");
    bytes.truncate(1 << 12);
    let length = 1_u64 << 42;
    // Program headers stand behind the header, 56 bytes each: the first becomes notes, all of the file.
    let at = usize::try_from(u64::from_le_bytes(bytes[32..40].try_into().expect("eight")));
    let header = &mut bytes[at.expect("small")..][..56];
    header.fill(0);
    header[..4].copy_from_slice(&elf::PT_NOTE.0.to_le_bytes());
    header[32..40].copy_from_slice(&length.to_le_bytes());
    // It is the only one, and there are no sections.
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    let path = scratch("hole", &bytes);
    let file = OpenOptions::new().write(true).open(&path).expect("ours");
    file.set_len(length).expect("a hole");
    let module = Module::open(&path);
    let runtime = crate::inspect::runtime::go(&path);
    std::fs::remove_file(&path).expect("it was there");
    assert_eq!(module.expect("sound headers").build_id(), None);
    assert_eq!(runtime, None);
}

/// The same section as often as there are headers.
#[test]
fn tables_are_read_no_more_often_than_is_bounded() {
    use crate::inspect::debug_file::Lookup;
    use crate::inspect::symbols::Index;
    let name = |name: &str| name.to_owned();
    let table = |kind: u32, name: String, size| Section {
        name,
        kind,
        flags: 0,
        address: VirtAddr(0),
        offset: FileOffset(0),
        size,
        link: 0,
    };
    let path = scratch("often", b"");
    let file = OpenOptions::new().write(true).open(&path).expect("ours");
    file.set_len(SECTION_MAX).expect("a hole");
    let mut module = own();
    module.file = File::open(&path).expect("ours");
    module.path = path.clone();
    module.sections = vec![table(elf::SHT_DYNSYM.0, name(".dynsym"), 48)];
    let relocations = table(elf::SHT_RELA.0, name(".rela.dyn"), 64 << 20);
    module.sections.extend(std::iter::repeat_n(relocations, 1000));
    let error = Index::read(&module, Lookup::below(Path::new("/dev/null")));
    std::fs::remove_file(&path).expect("it was there");
    let error = error.expect_err("too much").to_string();
    assert!(error.contains("what lists functions"), "{error}");
}
