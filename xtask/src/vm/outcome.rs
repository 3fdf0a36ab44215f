//! What a virtual machine said, as facts.

use std::collections::BTreeMap;

/// What became of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Why the kernel refuses it.
    pub(super) refused: Option<String>,
    /// Whether every operation was told as it happened.
    pub(super) operations: bool,
    /// Spans that are as the programs tell, and the same from every source.
    pub(super) spans: Option<u32>,
}

/// What the verifier made of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) source: String,
    pub(super) program: String,
    pub(super) steps: u32,
    pub(super) bytes: u32,
}

/// Everything that a machine said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// `uname -r`.
    pub(super) release: String,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) verified: Vec<Verified>,
    /// What is wrong.
    pub(super) failures: Vec<String>,
    /// What panics said.
    pub(super) panics: Vec<String>,
    /// Tests that passed.
    pub(super) passed: u32,
    /// Seconds from the kernel's start to the last line.
    pub(super) seconds: Option<f64>,
}

/// What a kernel says when something in it has broken.
const BROKEN: [&str; 8] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "KASAN",
    "UBSAN",
    "segfault at",
];

/// Lines that panics may fill; the log has them all.
const PANIC_LINES: usize = 100;

impl Outcome {
    /// Reads a log. `suites` are the programs that must have run and succeeded.
    pub(super) fn read(text: &str, suites: &[&str]) -> Self {
        let mut outcome = Self::default();
        let mut missing: Vec<&str> = suites.to_vec();
        let mut is_over = false;
        let mut is_panic = false;
        for line in text.lines() {
            let line = line.trim_end();
            // The kernel's own lines may come in between; they are told apart by their time.
            if line.starts_with("[ ") && BROKEN.iter().any(|word| line.contains(word)) {
                outcome.failures.push(line.to_owned());
            }
            if let Some(said) = line.strip_prefix("vm: ") {
                let words: Vec<&str> = said.split(' ').collect();
                match words[..] {
                    ["release", release] => release.clone_into(&mut outcome.release),
                    ["end", suite, code] => {
                        missing.retain(|missing| *missing != suite);
                        if code != "0" {
                            outcome.failures.push(format!("{suite} ended with {code}"));
                        }
                    }
                    ["done", seconds] => {
                        is_over = true;
                        outcome.seconds = seconds.parse().ok();
                    }
                    ["deadline"] => outcome.failures.push("it did not end in time".to_owned()),
                    _ => {}
                }
            }
            is_panic |= line.contains("panicked at ");
            is_panic &= !line.starts_with("stack backtrace");
            if is_panic && outcome.panics.len() < PANIC_LINES {
                outcome.panics.push(line.to_owned());
            }
            outcome.test(line);
            outcome.told(line);
        }
        outcome.failures.extend(missing.iter().map(|suite| format!("{suite} did not end")));
        if !is_over {
            outcome.failures.push("the machine ended before its time".to_owned());
        }
        outcome
    }

    /// A line of the test harness.
    fn test(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test ") else { return };
        if result.ends_with(" ... ok") {
            self.passed += 1;
        } else if let Some(name) = result.strip_suffix(" ... FAILED") {
            self.failures.push(format!("test {name}"));
        }
    }

    /// A line that a test prints for us.
    fn told(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("source: ") {
            let Some((name, rest)) = rest.split_once(' ') else { return };
            let source = self.sources.entry(name.to_owned()).or_default();
            if let Some(why) = rest.strip_prefix("refused: ") {
                source.refused = Some(why.to_owned());
            } else if rest == "operations as told" {
                source.operations = true;
            } else if let Some(rest) = rest.strip_prefix("works: ") {
                source.spans = rest.split(' ').next().and_then(|count| count.parse().ok());
            }
        }
        if let Some(rest) = line.strip_prefix("verified: ") {
            let words: Vec<&str> = rest.split(' ').collect();
            if let [source, program, steps, bytes] = words[..]
                && let (Ok(steps), Ok(bytes)) = (steps.parse(), bytes.parse())
            {
                let (source, program) = (source.to_owned(), program.to_owned());
                self.verified.push(Verified { source, program, steps, bytes });
            }
        }
    }

    /// Takes down what differs from what this kernel is known to do.
    pub(super) fn expect(&mut self, sources: &[&str]) {
        for (name, source) in &self.sources {
            let wanted = sources.contains(&name.as_str());
            match (&source.refused, wanted) {
                (Some(why), true) => self.failures.push(format!("`{name}` is refused: {why}")),
                (None, false) => self.failures.push(format!("`{name}` is not known to work here")),
                _ => {}
            }
        }
        for name in sources {
            let Some(source) = self.sources.get(*name) else {
                self.failures.push(format!("nothing was told of `{name}`"));
                continue;
            };
            if source.refused.is_none() && (source.spans.is_none() || !source.operations) {
                self.failures.push(format!("`{name}` did not tell what happened"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SeaBIOS\nvm: release 6.1.0\nvm: begin capture\n\ntest a ... ok\n\
        source: fexit operations as told\nverified: fexit tcp_sendmsg 40716 7896\n\
        vm: end capture 0\ntest b ... ok\nsource: socket refused: no such type\n\
        source: fexit works: 130 spans as told\nvm: end sources 0\nvm: done 41.5\n";

    fn read(text: &str) -> Outcome {
        let mut outcome = Outcome::read(text, &["capture", "sources"]);
        outcome.expect(&["fexit"]);
        outcome
    }

    #[test]
    fn a_good_run_is_read() {
        let outcome = read(GOOD);
        assert_eq!(outcome.failures, [""; 0]);
        assert_eq!((outcome.release.as_str(), outcome.passed), ("6.1.0", 2));
        assert_eq!(outcome.seconds, Some(41.5));
        assert_eq!(outcome.sources["fexit"].spans, Some(130));
        assert_eq!(outcome.sources["socket"].refused.as_deref(), Some("no such type"));
        assert_eq!(outcome.verified[0].steps, 40716);
    }

    #[test]
    fn what_a_panic_says_is_kept() {
        let panic = "thread 'a' panicked at a.rs:1:\nleft: 1\nstack backtrace:\n";
        let text = GOOD.replace("test b ... ok\n", &format!("test b ... FAILED\n{panic}"));
        assert_eq!(read(&text).panics, ["thread 'a' panicked at a.rs:1:", "left: 1"]);
        assert_eq!(read(GOOD).panics, [""; 0]);
    }

    #[test]
    fn whatever_goes_wrong_fails_the_run() {
        for (from, to, says) in [
            ("vm: done 41.5\n", "", "before its time"),
            ("vm: end sources 0\n", "", "sources did not end"),
            ("vm: end capture 0", "vm: end capture 101", "capture ended with 101"),
            ("test b ... ok", "test b ... FAILED", "test b"),
            ("vm: done", "vm: deadline\nvm: done", "in time"),
            ("vm: done", "[    9.1] WARNING: CPU: 0 PID: 1\nvm: done", "WARNING"),
            ("vm: done", "[    9.1] BUG: kernel NULL pointer\nvm: done", "BUG"),
            (
                "source: fexit works",
                "source: fexit refused: EPERM\nsource: fexit worked",
                "refused",
            ),
            ("source: fexit operations as told\n", "", "did not tell"),
            ("fexit works: 130", "fexit works: some", "did not tell"),
            ("socket refused: no such type", "socket works: 130 spans as told", "not known"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let failures = read(&GOOD.replacen(from, to, 1)).failures.join("\n");
            assert!(failures.contains(says), "{to:?} gave {failures:?}");
        }
    }
}
