//! Programs that move their own code, to have it in large pages: they copy it into memory of their own, with
//! the probes that stand in it, and end by SIGTRAP at the first of those, since the kernel knows of none there.
//!
//! It goes by names and settings: what a program does is to be known before it has begun.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::inspect::regular;

/// What may be asked of a program that is about to begin, or has begun.
pub(crate) struct Begun<'a> {
    /// Its file.
    pub(crate) executable: &'a Path,
    /// Its arguments.
    pub(crate) args: &'a [String],
    /// Its environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Where its files are.
    pub(crate) root: &'a Path,
}

/// Whether a program moves its code if it is told to: other processes that run it may, whatever one does.
pub(crate) fn may_move(executable: &Path) -> bool {
    Kind::of(executable).is_some()
}

/// Whether a program moves its code.
pub(crate) fn moves(begun: &Begun<'_>) -> bool {
    match Kind::of(begun.executable) {
        Some(Kind::Node) => {
            let options = (begun.variable)("NODE_OPTIONS").unwrap_or_default();
            let mut words = begun.args.iter().map(String::as_str).chain(options.split_whitespace());
            words.any(is_node_option)
        }
        Some(Kind::Php) => {
            begun.args.iter().any(|arg| enables_php(arg.trim_start_matches("-d")))
                || php_settings(begun).iter().any(|file| enables_php(&text(file)))
        }
        None => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Php,
}

impl Kind {
    fn of(executable: &Path) -> Option<Self> {
        let name = executable.file_name()?.to_str()?;
        match name.strip_suffix(" (deleted)").unwrap_or(name) {
            "node" | "nodejs" => Some(Self::Node),
            // php8.2, php-fpm8.2, php-cgi
            name if name.starts_with("php") => Some(Self::Php),
            _ => None,
        }
    }
}

/// Node takes dashes and underlines alike.
fn is_node_option(word: &str) -> bool {
    let word = word.replace('_', "-");
    let value = word.strip_prefix("--use-largepages");
    value.is_some_and(|value| value != "=off")
}

const PHP_SETTING: &str = "opcache.huge_code_pages";

/// Whether some line of a PHP configuration turns it on.
fn enables_php(text: &str) -> bool {
    text.lines().any(|line| {
        let Some(rest) = line.trim_start().strip_prefix(PHP_SETTING) else { return false };
        let rest = rest.trim_start();
        let value = rest.strip_prefix('=').unwrap_or(if rest.is_empty() { "1" } else { "0" });
        let value = value.split(';').next().unwrap_or_default();
        let value = value.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "off" | "no" | "false" | "none")
    })
}

/// Most files of settings that are looked at, and how deep in directories, and most bytes of one.
const FILES_MAX: usize = 512;
const DEPTH_MAX: usize = 4;
const BYTES_MAX: u64 = 1 << 20;

/// The files that may hold settings of PHP: all that distributions and images put there, since which of them
/// counts is compiled into it.
fn php_settings(begun: &Begun<'_>) -> Vec<PathBuf> {
    let within = |path: &str| begun.root.join(path.trim_start_matches('/'));
    let mut places = vec![within("/usr/local/lib/php.ini")];
    for directory in ["/etc", "/usr/local/etc"].map(within) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names_php = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"php");
        places.extend(entries.filter(|entry| names_php(&entry.file_name())).map(|e| e.path()));
    }
    for name in ["PHPRC", "PHP_INI_SCAN_DIR"] {
        let value = (begun.variable)(name).unwrap_or_default();
        places.extend(value.split(':').filter(|path| !path.is_empty()).map(within));
    }
    let mut words = begun.args.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix("-c") {
            Some("") => places.extend(words.next().map(|path| within(path))),
            Some(path) => places.push(within(path)),
            None => {}
        }
    }
    let mut files = Vec::new();
    for place in places {
        add_files(&place, DEPTH_MAX, &mut files);
    }
    files
}

/// Adds a file of settings, or those of a directory. Links are not followed: they would lead out of the
/// program's root, and what they lead to is in these directories, too.
fn add_files(place: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(metadata) = fs::symlink_metadata(place) else { return };
    let is_settings = place.extension().is_some_and(|extension| extension == "ini");
    if metadata.is_file() && is_settings && files.len() < FILES_MAX {
        files.push(place.to_owned());
    }
    if metadata.is_dir() && depth > 0 {
        for entry in fs::read_dir(place).into_iter().flatten().flatten().take(FILES_MAX) {
            add_files(&entry.path(), depth - 1, files);
        }
    }
}

fn text(file: &Path) -> String {
    let mut bytes = Vec::new();
    // What cannot be read says nothing.
    let _ = regular::must_open(file).map(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves_with(executable: &str, args: &[&str], variables: &[(&str, &str)]) -> bool {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let (executable, root) = (Path::new(executable), Path::new("/nonexistent"));
        moves(&Begun { executable, args: &args, variable: &variable, root })
    }

    #[test]
    fn node_says_so_in_options() {
        for (executable, args, options, expected) in [
            ("/usr/bin/node", &["node", "a.js"][..], "", false),
            ("/usr/bin/node", &["node", "--use-largepages=on", "a.js"], "", true),
            ("/usr/bin/nodejs (deleted)", &["node", "--use_largepages=silent"], "", true),
            ("/usr/bin/node", &["node", "--use-largepages=off"], "", false),
            ("/usr/bin/node", &["node", "a.js"], "--no-warnings --use-largepages=on", true),
            ("/usr/bin/python3", &["python3", "--use-largepages=on"], "", false),
        ] {
            let moves = moves_with(executable, args, &[("NODE_OPTIONS", options)]);
            assert_eq!(moves, expected, "{executable} {args:?} {options}");
        }
        assert!(may_move(Path::new("/usr/bin/node")) && !may_move(Path::new("/usr/bin/ruby")));
    }

    #[test]
    fn php_says_so_in_settings() {
        for (text, expected) in [
            ("", false),
            ("opcache.huge_code_pages=1", true),
            ("[opcache]\n  opcache.huge_code_pages = On ; large\n", true),
            ("opcache.huge_code_pages=\"1\"", true),
            // As an argument.
            ("opcache.huge_code_pages", true),
            ("opcache.huge_code_pages=0", false),
            ("opcache.huge_code_pages = Off", false),
            ("opcache.huge_code_pages=", false),
            (";opcache.huge_code_pages=1", false),
            ("opcache.huge_code_pages_of_another=1", false),
        ] {
            assert_eq!(enables_php(text), expected, "{text}");
        }
        assert!(moves_with("/usr/sbin/php-fpm8.2", &["php", "-dopcache.huge_code_pages=1"], &[]));
        assert!(moves_with("/usr/bin/php", &["php", "-d", "opcache.huge_code_pages=1"], &[]));
        assert!(!moves_with("/usr/bin/php", &["php", "a.php"], &[]));
    }

    #[test]
    fn files_of_settings_are_found() {
        let root = std::env::temp_dir().join(format!("remora-mover-{}", std::process::id()));
        let directory = root.join("etc/php/8.2/fpm/conf.d");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("10-opcache.ini"), "opcache.huge_code_pages=1\n").expect("a file");
        let begun = |executable| Begun {
            executable: Path::new(executable),
            args: &[],
            variable: &|_| None,
            root: &root,
        };
        assert!(moves(&begun("/usr/sbin/php-fpm8.2")));
        assert!(!moves(&begun("/usr/bin/node")));
        fs::write(directory.join("10-opcache.ini"), "opcache.huge_code_pages=0\n").expect("a file");
        assert!(!moves(&begun("/usr/sbin/php-fpm8.2")));
        fs::remove_dir_all(&root).expect("it is ours");
    }
}
