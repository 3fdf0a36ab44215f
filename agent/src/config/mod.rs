//! The configuration file: every flag of a command under its own name, in TOML.
//!
//! ```toml
//! exe = ["nginx", "/usr/bin/python3*"]
//! otlp = "http://localhost:4318"
//! follow = true
//! ```
//!
//! It knows no flag: it turns entries into arguments, and whoever parses arguments says what is
//! wrong with one. Flags win over the file, the file over the environment.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("the configuration {path} has more than {BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML.
    #[error("the configuration {path} is not TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An entry is no value that a flag can have.
    #[error(
        "the configuration {path} has a {found} under `{key}`: expected text, a number, true, \
         false, or a list of these"
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
        /// What is there.
        found: &'static str,
    },
}

/// An entry: the flag without its dashes, and its values. No value: the flag is given alone.
pub type Entry = (String, Vec<String>);

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<Entry>, FileError> {
    let fail = |source| FileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(fail)?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    entries(path, &text)
}

fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, FileError> {
    let table: toml::Table = text.parse().map_err(|source| {
        let source = Box::new(source);
        FileError::Syntax { path: path.to_owned(), source }
    })?;
    let mut entries = Vec::new();
    for (key, value) in &table {
        let wrong = |found| FileError::Value { path: path.to_owned(), key: key.clone(), found };
        let values = match value {
            toml::Value::Boolean(true) => Vec::new(),
            toml::Value::Boolean(false) => continue,
            toml::Value::Array(values) if values.is_empty() => continue,
            toml::Value::Array(values) => {
                let text = |value| scalar(value).ok_or_else(|| wrong("list of something else"));
                values.iter().map(text).collect::<Result<_, _>>()?
            }
            value => vec![scalar(value).ok_or_else(|| wrong(value.type_str()))?],
        };
        entries.push((key.clone(), values));
    }
    Ok(entries)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The arguments with the file's entries behind them, but before a launched program's own; none of a
/// flag that is given.
pub fn merge(args: &[OsString], entries: Vec<Entry>) -> Vec<OsString> {
    let given = |name: &str| {
        let flag = format!("--{name}");
        let own = args.iter().take_while(|arg| *arg != "--");
        own.map(|arg| arg.to_string_lossy()).any(|arg| {
            arg.strip_prefix(&flag)
                .is_some_and(|rest| matches!(rest.chars().next(), None | Some('=')))
        })
    };
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (own, program) = args.split_at(end);
    let mut merged = own.to_vec();
    for (name, values) in entries {
        if given(&name) {
            continue;
        }
        if values.is_empty() {
            merged.push(format!("--{name}").into());
        }
        merged.extend(values.into_iter().map(|value| format!("--{name}={value}").into()));
    }
    merged.extend_from_slice(program);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(args: &str, text: &str) -> Result<String, FileError> {
        let args: Vec<OsString> = args.split(' ').map(Into::into).collect();
        let merged = merge(&args, entries(Path::new("f.toml"), text)?);
        Ok(merged.join(" ".as_ref()).to_string_lossy().into_owned())
    }

    #[test]
    fn entries_become_flags_that_given_ones_replace() {
        for (args, text, expected) in [
            ("remora run", "", "remora run"),
            ("remora run", "all = true\nfollow = false", "remora run --all"),
            ("remora run --all", "otlp = \"http://h:1\"", "remora run --all --otlp=http://h:1"),
            (
                "remora run --pid 7",
                "exe = [\"a\", \"b c\"]\nport = [80, 443]\npid = 9",
                "remora run --pid 7 --exe=a --exe=b c --port=80 --port=443",
            ),
            ("remora run --pid=7", "pid = 9", "remora run --pid=7"),
            ("remora exec -- x --pid", "pid = 9", "remora exec --pid=9 -- x --pid"),
            ("remora run --pids", "pid = [9]\nexe = []", "remora run --pids --pid=9"),
        ] {
            assert_eq!(merged(args, text).expect("good"), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("pid = ", "is not TOML"),
            ("pid = 1\npid = 2", "is not TOML"),
            ("[run]\npid = 1", "has a table under `run`"),
            ("pid = [[1]]", "has a list of something else under `pid`"),
            ("since = 2020-01-01", "has a datetime under `since`"),
        ] {
            let error = merged("remora run", text).expect_err("wrong").to_string();
            assert!(error.contains("f.toml") && error.contains(told), "{error}");
        }
    }
}
