//! Whether what the repository's pages name is there: paths, modules and what is in them, tasks. What is moved
//! is to be moved there as well.

use std::path::Path;

use clap::CommandFactory;

use super::Source;

/// The pages.
const PAGES: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];

/// Where paths begin.
const TOPS: [&str; 6] = ["agent/", "agent-common/", "agent-ebpf/", "docs/", "tests/", "xtask/"];

/// What the pages name that is not there.
pub(super) fn check(root: &Path, sources: &[Source]) -> Vec<String> {
    let tasks = crate::Cli::command();
    let tasks: Vec<&str> = tasks.get_subcommands().map(clap::Command::get_name).collect();
    let mut wrong = Vec::new();
    for page in PAGES {
        let Ok(text) = std::fs::read_to_string(root.join(page)) else {
            wrong.push(format!("{page} is missing"));
            continue;
        };
        let exists = |path: &str| root.join(path).exists();
        wrong.extend(
            missing(&text, exists, sources, &tasks)
                .map(|name| format!("{page}: names `{name}`, which is not there")),
        );
    }
    wrong
}

fn missing(
    text: &str,
    exists: impl Fn(&str) -> bool,
    sources: &[Source],
    tasks: &[&str],
) -> impl Iterator<Item = String> {
    let mut missing = Vec::new();
    for word in words(text) {
        if TOPS.iter().any(|top| word.starts_with(top)) {
            missing.extend(expanded(word).into_iter().filter(|path| !is_there(path, &exists)));
        } else if let Some((module, name)) = word.split_once("::") {
            let name = name.rsplit("::").next().unwrap_or(name);
            missing.extend((!is_defined(module, name, sources)).then(|| word.to_owned()));
        }
    }
    for (_, behind) in
        text.match_indices("cargo xtask ").map(|(at, task)| text.split_at(at + task.len()))
    {
        let end = behind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(behind.len());
        let task = &behind[..end];
        if !task.is_empty() && !tasks.contains(&task) {
            missing.push(format!("cargo xtask {task}"));
        }
    }
    missing.into_iter()
}

/// What may be a path, or that of an item.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./{},:".contains(c);
    let words = text.split(move |c| !is_part(c));
    words.map(|word| word.trim_end_matches([',', '.', ':'])).filter(|word| !word.is_empty())
}

/// `a/{b,c}.rs` as two.
fn expanded(path: &str) -> Vec<String> {
    let parts =
        path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (choices, behind))) => {
            choices.split(',').map(|choice| format!("{before}{choice}{behind}")).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// A module may be named without the ending of its file, and without `src`.
fn is_there(path: &str, exists: impl Fn(&str) -> bool) -> bool {
    let inner = path.replacen('/', "/src/", 1);
    [path, &inner].iter().any(|path| exists(path) || exists(&format!("{path}.rs")))
}

/// Whether something of this name is defined in a module of the agent's; whatever is no such module is.
fn is_defined(module: &str, name: &str, sources: &[Source]) -> bool {
    let (file, folder) = (format!("agent/src/{module}.rs"), format!("agent/src/{module}/"));
    let mut own = sources
        .iter()
        .filter(|source| source.path == file || source.path.starts_with(&folder))
        .peekable();
    if own.peek().is_none() {
        return true;
    }
    let inner = format!("/{name}");
    own.any(|source| {
        let path = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.ends_with(&inner)
            || source.text.match_indices(name).any(|(at, _)| {
                let before = source.text[..at].trim_end();
                let kind = before.rsplit(|c: char| !c.is_ascii_lowercase()).next();
                let ends = source.text[at + name.len()..]
                    .starts_with(|c: char| !c.is_alphanumeric() && c != '_');
                let kinds = ["fn", "struct", "enum", "trait", "mod", "const", "static", "type"];
                ends && kind.is_some_and(|kind| kinds.contains(&kind))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let source =
            |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
        let sources = [
            source("agent/src/run/mod.rs", "pub(crate) fn look() {}\nfn looks() {}"),
            source("agent/src/run/held.rs", "pub struct Held;"),
        ];
        let exists =
            |path: &str| matches!(path, "agent/src/run" | "agent/src/run/held.rs" | "docs/a.md");
        let missing = |text: &str| missing(text, exists, &sources, &["test"]).collect::<Vec<_>>();
        for fine in [
            "`agent/src/run`, `agent/src/run/held.rs` and docs/a.md.",
            "agent/src/run/{held}.rs: agent/run and `agent/run/held`,",
            "`run::look`, `run::held::Held`, `std::fs::File`, `Tracker::join`",
            "cargo xtask test --fast",
            "agents/are/no/path",
        ] {
            assert_eq!(missing(fine), [""; 0], "{fine}");
        }
        for (wrong, expected) in [
            ("see `agent/src/walk.rs`.", "agent/src/walk.rs"),
            ("`agent/src/run/{held,gone}.rs`", "agent/src/run/gone.rs"),
            ("`run::loo`", "run::loo"),
            ("`run::held::Hel`", "run::held::Hel"),
            ("cargo xtask tidy", "cargo xtask tidy"),
        ] {
            assert_eq!(missing(wrong), [expected], "{wrong}");
        }
    }
}
