//! Symbols of real files, made here.

use super::*;
use crate::scratch::Directory;

fn indexed(directory: &Directory, file: &str) -> (Module, Index) {
    let module = Module::open(&directory.file(file)).expect("a program");
    let index = Index::read(&module, Lookup::below(directory.path())).expect("symbols");
    (module, index)
}

const SOURCE: &str = r#"
namespace shop { struct Cart { int total(int n) const; }; }
__attribute__((noinline)) int shop::Cart::total(int n) const { return n * 3; }
extern "C" __attribute__((noinline)) int plain(int n) { return n + 1; }
extern "C" int other(int) __attribute__((alias("plain")));
extern "C" __attribute__((noinline)) int chosen(int n) { return n - 1; }
extern "C" int (*choose())(int) { return chosen; }
extern "C" int resolved(int) __attribute__((ifunc("choose")));
asm(".text\n.type unsized,@function\nunsized: nop\nret\n.balign 16");
int main(int count, char **) { return shop::Cart().total(count) + plain(count); }
"#;

fn compiled(name: &str) -> Option<Directory> {
    let directory = Directory::new(name);
    std::fs::write(directory.file("p.cc"), SOURCE).expect("a source");
    let args = ["-O1", "-Wl,--build-id", "-o", "p", "p.cc"];
    directory.run("g++", &args).map(|_| directory)
}

fn named(index: &Index, name: &str) -> Vec<Function> {
    index.functions(|other| other == name)
}

#[test]
fn functions_are_found_by_any_of_their_names() {
    let Some(directory) = compiled("symbols-names") else { return };
    let (module, index) = indexed(&directory, "p");
    let [total] = named(&index, "shop::Cart::total").try_into().expect("one");
    assert_eq!((total.language, total.origin), (Language::Cpp, Origin::Symbols));
    assert_eq!(total.linkage, "_ZNK4shop4Cart5totalEi");
    for name in ["plain", "other"] {
        let [function] = named(&index, name).try_into().expect("one");
        assert_eq!(function.name, name);
        let alias = if name == "plain" { "other" } else { "plain" };
        assert_eq!(function.aliases, [alias]);
    }
    let [unsized_one] = named(&index, "unsized").try_into().expect("one");
    assert!(unsized_one.size >= 2, "bounded by what follows: {unsized_one:?}");
    let [resolver] = named(&index, "resolved").try_into().expect("one");
    assert_eq!(resolver.variant, Variant::Resolver);
    let refused = crate::inspect::code::place(&module, &index, &resolver);
    assert_eq!(refused, Err(crate::inspect::code::Refusal::Resolver));
    assert_eq!(index.starting_at(total.address), Some("_ZNK4shop4Cart5totalEi"));
    let inside = VirtAddr(total.address.0 + 1);
    let (_, range) = index.holding(inside).expect("inside");
    assert_eq!(range.start, total.address);
    assert!(!index.is_stripped());
}

#[test]
fn a_stripped_program_has_its_debug_file() {
    let Some(directory) = compiled("symbols-debug") else { return };
    if directory.run("objcopy", &["--only-keep-debug", "p", "p.debug"]).is_none() {
        return;
    }
    directory.run("objcopy", &["--strip-all", "p", "bare"]);
    let (_, index) = indexed(&directory, "bare");
    assert!(index.is_stripped() && named(&index, "plain").is_empty());
    // By the link's name, beside the program.
    directory.run("objcopy", &["--add-gnu-debuglink=p.debug", "bare", "linked"]);
    let (_, index) = indexed(&directory, "linked");
    let [plain] = named(&index, "plain").try_into().expect("one");
    assert_eq!(plain.origin, Origin::DebugFile);
    // By the build id, below the process's root.
    let (module, _) = indexed(&directory, "bare");
    let id: String =
        module.build_id().expect("asked for").iter().map(|b| format!("{b:02x}")).collect();
    let (first, rest) = id.split_at(2);
    let place = directory.file("usr/lib/debug/.build-id").join(first);
    std::fs::create_dir_all(&place).expect("a directory");
    std::fs::copy(directory.file("p.debug"), place.join(format!("{rest}.debug"))).expect("a copy");
    let (_, index) = indexed(&directory, "bare");
    assert_eq!(named(&index, "plain").len(), 1);
    // One of another build is not taken.
    std::fs::write(directory.file("q.cc"), SOURCE.replace("n * 3", "n * 5")).expect("a source");
    directory.run("g++", &["-O1", "-Wl,--build-id", "-o", "q", "q.cc"]);
    directory.run("objcopy", &["--only-keep-debug", "q", "p.debug"]);
    std::fs::remove_dir_all(directory.file("usr")).expect("it was there");
    let (_, index) = indexed(&directory, "linked");
    assert!(named(&index, "plain").is_empty());
}

#[test]
fn packed_symbols_are_read() {
    let Some(directory) = compiled("symbols-mini") else { return };
    if directory.run("xz", &["--version"]).is_none() {
        return;
    }
    directory.run("objcopy", &["--only-keep-debug", "p", "mini"]);
    directory.run("xz", &["mini"]);
    let args = ["--strip-all", "--add-section", ".gnu_debugdata=mini.xz", "p", "packed"];
    if directory.run("objcopy", &args).is_none() {
        return;
    }
    let (_, index) = indexed(&directory, "packed");
    let [plain] = named(&index, "plain").try_into().expect("one");
    assert_eq!(plain.origin, Origin::MiniDebug);
    // Damage costs the symbols, nothing else.
    let mut bytes = std::fs::read(directory.file("packed")).expect("made");
    let (module, _) = indexed(&directory, "packed");
    let section = module.section(".gnu_debugdata").expect("added");
    let at = usize::try_from(section.offset.0 + section.size / 2).expect("small");
    bytes[at] ^= 0xff;
    std::fs::write(directory.file("damaged"), bytes).expect("a file");
    let (_, index) = indexed(&directory, "damaged");
    assert!(index.is_stripped());
}

const GO: &str = "package main\n\nimport \"fmt\"\n\ntype T struct{ n int }\n\n\
    func (t T) M() int { return t.n }\n\nfunc Map[V any](v V) string { return fmt.Sprint(v) }\n\n\
    var all []interface{ M() int }\n\n\
    func main() { all = append(all, &T{3}, T{4}); for _, i := range all { fmt.Println(i.M(), Map(4)) } }\n";

#[test]
fn go_tells_its_functions_though_stripped() {
    for (name, flags) in [("static", "-s -w"), ("pie", "-s -w -buildmode=pie")] {
        let directory = Directory::new(name);
        std::fs::write(directory.file("p.go"), GO).expect("a source");
        if directory.run("go", &["build", "-o", "whole", "p.go"]).is_none() {
            return;
        }
        let mut args = vec!["build", "-ldflags=-s -w", "-o", "bare"];
        if flags.contains("pie") {
            args.push("-buildmode=pie");
        }
        args.push("p.go");
        directory.run("go", &args);
        let (_, bare) = indexed(&directory, "bare");
        let [main] = named(&bare, "main.main").try_into().expect("one");
        assert_eq!((main.language, main.origin), (Language::Go, Origin::GoTable), "{name}");
        let [wrapper] = named(&bare, "main.(*T).M").try_into().expect("one");
        assert_eq!(wrapper.variant, Variant::GoWrapper, "{name}");
        assert!(bare.functions(|name| name == "runtime.morestack").len() == 1, "{name}");
        if name == "static" {
            let (_, whole) = indexed(&directory, "whole");
            let [told] = named(&whole, "main.main").try_into().expect("one");
            assert_eq!((told.address, told.language), (main.address, Language::Go));
        }
    }
}

#[test]
fn tables_that_are_cut_or_wrong_are_harmless() {
    use crate::inspect::gopclntab::Table;
    // The head of Go 1.20: version, quantum and pointer size, two functions, then offsets of the parts.
    let mut data = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    for word in [2u64, 1, 0, 72, 80, 88, 96, 104] {
        data.extend(word.to_le_bytes());
    }
    data.extend(std::iter::repeat_n(0x55, 200));
    for length in 0..data.len() {
        if let Ok(table) = Table::parse(&data[..length], VirtAddr(0x1000)) {
            assert!(table.entries().count() <= 2);
        }
    }
    assert_eq!(table::functions(&[0xff; 100], 0, Origin::Symbols).count(), 0);
}
