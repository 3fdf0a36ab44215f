//! Which processes are wanted.

use globset::{Glob, GlobMatcher};

use super::process::Facts;
use crate::event::ids::Tgid;

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{pattern}` as a pattern for executables")]
pub struct RuleError {
    pattern: String,
    #[source]
    source: globset::Error,
}

/// What a user asked for. A process is wanted if any part matches.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Processes by id.
    pub pids: Vec<Tgid>,
    exes: Vec<(bool, GlobMatcher)>,
    /// Ports that a process listens on.
    pub ports: Vec<u16>,
    /// Every process but the agent.
    pub all: bool,
}

impl Rules {
    /// Builds rules. A pattern with a slash is matched against the whole path, else against the
    /// file's name.
    pub fn new(pids: &[u32], exes: &[String], ports: &[u16], all: bool) -> Result<Self, RuleError> {
        let compile = |pattern: &String| match Glob::new(pattern) {
            Ok(glob) => Ok((pattern.contains('/'), glob.compile_matcher())),
            Err(source) => Err(RuleError { pattern: pattern.clone(), source }),
        };
        let exes = exes.iter().map(compile).collect::<Result<_, _>>()?;
        let pids = pids.iter().copied().map(Tgid).collect();
        Ok(Self { pids, exes, ports: ports.to_vec(), all })
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty() && !self.matches_new_programs() && self.ports.is_empty()
    }

    /// Whether a program that starts later can match.
    pub fn matches_new_programs(&self) -> bool {
        self.all || !self.exes.is_empty()
    }

    /// Whether a program is wanted, whatever its ports.
    pub fn wants(&self, facts: &Facts) -> bool {
        if facts.tgid.0 == std::process::id() {
            return false;
        }
        let file = facts.exe.file_name().unwrap_or_default();
        let by_exe = |(whole, glob): &(bool, GlobMatcher)| {
            if *whole { glob.is_match(&facts.exe) } else { glob.is_match(file) }
        };
        self.all || self.pids.contains(&facts.tgid) || self.exes.iter().any(by_exe)
    }
}
