//! Programs that run another program's code by reading it: they would read a probe as an instruction of
//! its, and it would end by SIGTRAP, or worse.

use std::path::Path;

/// Whether a program reads the code of the files that it maps, or may become one that does in its own
/// process, as wrappers, shells and `env` do that are given such a one's name. It goes by names: what it
/// does is to be known before it has mapped anything.
pub(crate) fn reads_code<S: AsRef<str>>(executable: &Path, args: &[S]) -> bool {
    let words = args.iter().flat_map(|arg| arg.as_ref().split_whitespace());
    is_translator(executable) || words.map(Path::new).any(is_translator)
}

fn is_translator(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    let directory = path.parent().and_then(Path::file_name);
    match name {
        // What starts its tools.
        "valgrind" | "valgrind.bin" => true,
        // Of guests of the same kind as this host, the files are the ones that others run.
        "qemu-x86_64" | "qemu-x86_64-static" => true,
        // Its tools: `/usr/libexec/valgrind/memcheck-amd64-linux`.
        _ => name.ends_with("-amd64-linux") && directory.is_some_and(|name| name == "valgrind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translators_are_known_by_name() {
        for (path, args, expected) in [
            ("/usr/bin/valgrind", &[][..], true),
            ("/usr/bin/valgrind.bin", &[], true),
            ("/usr/libexec/valgrind/memcheck-amd64-linux", &[], true),
            ("/opt/valgrind-3.24/libexec/valgrind/none-amd64-linux", &[], true),
            ("/usr/libexec/valgrind/cachegrind-amd64-linux (deleted)", &[], true),
            ("/usr/bin/qemu-x86_64-static", &[], true),
            ("/usr/bin/dash", &["/bin/sh", "-e", "/usr/bin/valgrind", "./a"], true),
            ("/usr/bin/bash", &["bash", "-c", "make && valgrind -q ./a"], true),
            ("/usr/bin/env", &["env", "A=1", "valgrind", "./a"], true),
            ("/usr/bin/qemu-system-x86_64", &["-kernel", "a"], false),
            ("/usr/bin/x-amd64-linux", &[], false),
            ("/home/valgrind/program", &["valgrind.log", "--valgrind"], false),
            ("/", &[""], false),
        ] {
            assert_eq!(reads_code(Path::new(path), args), expected, "{path} {args:?}");
        }
    }
}
