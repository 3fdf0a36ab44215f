//! What the user asks for: `[MODULE!]GLOB[@OPTION,…]`, and `!GLOB` for what is left out of that.
//!
//! A glob is matched with a function's demangled name without its arguments; `*` crosses `::`, `/` and
//! `.`. Without a module the executable is meant; `*!GLOB` means every module.

use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobMatcher};

use super::value::{self, Compare, Condition};

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// Nothing to match with.
    #[error("cannot use `{pattern}`: expected [MODULE!]GLOB[@OPTION,…], as `parse_*@min=1ms`")]
    Empty {
        /// As it was given.
        pattern: String,
    },
    /// A glob is wrong.
    #[error("cannot use `{pattern}`")]
    Glob {
        /// As it was given.
        pattern: String,
        /// What is wrong.
        #[source]
        source: globset::Error,
    },
    /// An option is unknown.
    #[error(
        "cannot use option `{option}` of `{pattern}`: expected args=auto, args=none, args=NAME,…, ret, \
         depth=N, min=TIME, if=ARG>NUMBER, rate=N/s, in-request, errno or stack"
    )]
    Option {
        /// As it was given.
        pattern: String,
        /// The option.
        option: String,
    },
    /// An option's value is wrong.
    #[error("cannot use `{option}` of `{pattern}`: expected {expected}")]
    Value {
        /// As it was given.
        pattern: String,
        /// The option with its value.
        option: String,
        /// What would do.
        expected: &'static str,
    },
    /// An option of what is left out.
    #[error("cannot use options with `{pattern}`: it leaves functions out")]
    Excludes {
        /// As it was given.
        pattern: String,
    },
    /// Only exclusions.
    #[error("nothing is left of `{pattern}` alone: give a pattern of what is to be traced, too")]
    OnlyExcludes {
        /// The first.
        pattern: String,
    },
}

/// One pattern of functions to trace.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    place: Matcher,
    /// What is read and told.
    pub options: Options,
}

/// What is read of a function's calls, and which are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which arguments.
    pub args: Args,
    /// Whether the result is read though no arguments are.
    pub ret: bool,
    /// How many pointers are followed.
    pub depth: Option<u8>,
    /// Calls shorter than this are left out.
    pub min: Duration,
    /// Calls that do not fulfil all of these are left out.
    pub conditions: Vec<Condition>,
    /// Most calls told a second; 0: any number.
    pub rate: u64,
    /// Calls outside of requests are left out.
    pub in_request: bool,
    /// A negative result means that the function failed.
    pub errno: bool,
    /// A call says who has called it.
    pub stack: bool,
}

/// Which arguments are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Args {
    /// All that debug information describes.
    #[default]
    Auto,
    /// None.
    None,
    /// These, or members of them.
    Only(Vec<String>),
}

#[derive(Clone, Debug)]
struct Matcher {
    module: Option<GlobMatcher>,
    name: GlobMatcher,
}

impl Matcher {
    fn concerns(&self, module: &Called<'_>) -> bool {
        match &self.module {
            Some(glob) => module.names().any(|name| glob.is_match(name)),
            None => module.is_executable,
        }
    }
}

/// A module, as patterns name it.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// Its file name.
    pub name: &'a str,
    /// What else it is called: by itself (`DT_SONAME`), by a link to its file.
    pub other_names: &'a [String],
    /// Whether it is the executable, which patterns without a module mean.
    pub is_executable: bool,
}

impl Called<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name).chain(self.other_names.iter().map(String::as_str))
    }
}

/// All patterns together.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    include: Vec<Arc<Pattern>>,
    exclude: Vec<Matcher>,
}

impl Patterns {
    /// Reads patterns.
    ///
    /// # Errors
    /// Says which one is wrong, where, and what would do.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut parsed = Self::default();
        for text in patterns.iter().map(AsRef::as_ref) {
            match text.strip_prefix('!') {
                Some(rest) if rest.contains('@') => {
                    return Err(PatternError::Excludes { pattern: text.to_owned() });
                }
                Some(rest) => parsed.exclude.push(matcher(text, rest)?),
                None => parsed.include.push(Arc::new(Pattern::parse(text)?)),
            }
        }
        match patterns.first() {
            Some(first) if parsed.include.is_empty() => {
                Err(PatternError::OnlyExcludes { pattern: first.as_ref().to_owned() })
            }
            _ => Ok(parsed),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty()
    }

    /// Whether any could match in a module.
    pub fn concern(&self, module: &Called<'_>) -> bool {
        self.include.iter().any(|pattern| pattern.place.concerns(module))
    }

    /// Whether any names a module.
    pub fn name_modules(&self) -> bool {
        self.include.iter().any(|pattern| pattern.place.module.is_some())
    }

    /// The first pattern that matches a function, unless it is left out.
    pub fn find(&self, module: &Called<'_>, name: &str) -> Option<&Arc<Pattern>> {
        // What leaves out says nothing of a module unless it names one.
        let left_out = self.exclude.iter().any(|exclude| {
            (exclude.module.is_none() || exclude.concerns(module)) && exclude.name.is_match(name)
        });
        if left_out {
            return None;
        }
        self.include
            .iter()
            .find(|pattern| pattern.place.concerns(module) && pattern.place.name.is_match(name))
    }

    /// Each pattern as it was given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.include.iter().map(|pattern| pattern.text.as_str())
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let (place, options) = match text.split_once('@') {
            Some((place, options)) => (place, Options::parse(text, options)?),
            None => (text, Options::default()),
        };
        Ok(Self { text: text.to_owned(), place: matcher(text, place)?, options })
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is read; `None`: nothing.
    pub fn values(&self) -> Option<value::Options> {
        let Options { args, ret, depth, conditions, errno, .. } = &self.options;
        if *args == Args::None && !ret && conditions.is_empty() {
            return None;
        }
        let mut options = value::Options {
            conditions: conditions.clone(),
            negative_fails: *errno,
            ..value::Options::default()
        };
        if let Some(depth) = depth {
            options.depth = *depth;
        }
        if let Args::Only(names) = args {
            options.select.clone_from(names);
        }
        Some(options)
    }
}

impl Options {
    fn parse(pattern: &str, text: &str) -> Result<Self, PatternError> {
        let mut options = Self::default();
        let mut naming = false;
        for option in text.split(',') {
            let wrong = |expected| PatternError::Value {
                pattern: pattern.to_owned(),
                option: option.to_owned(),
                expected,
            };
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let was_naming = std::mem::replace(&mut naming, false);
            match (key, value) {
                ("args", "auto") => options.args = Args::Auto,
                ("args", "none") => options.args = Args::None,
                ("args", name) if !name.is_empty() => {
                    options.args = Args::Only(vec![name.to_owned()]);
                    naming = true;
                }
                ("ret", "") => options.ret = true,
                ("in-request", "") => options.in_request = true,
                ("errno", "") => options.errno = true,
                ("stack", "") => options.stack = true,
                ("depth", depth) => {
                    let depth = depth.parse().ok().filter(|depth| *depth <= 8);
                    options.depth = Some(depth.ok_or_else(|| wrong("a number up to 8"))?);
                }
                ("min", time) => {
                    options.min = duration(time).ok_or_else(|| wrong("a time, as 250us or 1ms"))?;
                }
                ("rate", rate) => {
                    let rate = rate.strip_suffix("/s").unwrap_or(rate);
                    let rate = rate.parse().ok().filter(|rate| *rate > 0);
                    options.rate = rate.ok_or_else(|| wrong("a number of calls, as 100/s"))?;
                }
                ("if", _) => {
                    let (_, condition) = option.split_once('=').unwrap_or_default();
                    let condition = condition_of(condition);
                    options
                        .conditions
                        .push(condition.ok_or_else(|| wrong("a comparison, as size>4096"))?);
                }
                (name, "") if was_naming && !name.is_empty() => {
                    if let Args::Only(names) = &mut options.args {
                        names.push(name.to_owned());
                    }
                    naming = true;
                }
                _ => {
                    return Err(PatternError::Option {
                        pattern: pattern.to_owned(),
                        option: option.to_owned(),
                    });
                }
            }
        }
        Ok(options)
    }
}

fn matcher(pattern: &str, text: &str) -> Result<Matcher, PatternError> {
    let (module, name) = match text.split_once('!') {
        Some((module, name)) => (Some(module), name),
        None => (None, text),
    };
    if name.is_empty() || module == Some("") {
        return Err(PatternError::Empty { pattern: pattern.to_owned() });
    }
    let glob = |glob: &str| {
        // Names have brackets and braces of their own (Go's and Rust's type arguments).
        let plain: String = glob
            .chars()
            .flat_map(|c| match c {
                '[' | ']' | '{' | '}' | '\\' => vec!['\\', c],
                c => vec![c],
            })
            .collect();
        let built = Glob::new(&plain);
        built
            .map(|glob| glob.compile_matcher())
            .map_err(|source| PatternError::Glob { pattern: pattern.to_owned(), source })
    };
    Ok(Matcher { module: module.map(glob).transpose()?, name: glob(name)? })
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "ns" => Duration::from_nanos(number),
        "us" | "µs" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return None,
    })
}

fn condition_of(text: &str) -> Option<Condition> {
    let at = text.find(['<', '>', '=', '!'])?;
    let (path, rest) = text.split_at(at);
    let number = rest.trim_start_matches(['<', '>', '=', '!']);
    let compare = match rest.strip_suffix(number)? {
        "==" | "=" => Compare::Equal,
        "!=" => Compare::NotEqual,
        "<" => Compare::Less,
        "<=" => Compare::LessOrEqual,
        ">" => Compare::Greater,
        ">=" => Compare::GreaterOrEqual,
        _ => return None,
    };
    let number = number.parse().ok()?;
    (!path.is_empty()).then(|| Condition { path: path.to_owned(), compare, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        let patterns = Patterns::parse(&[text]).expect("it parses");
        patterns.include.first().expect("one").options.clone()
    }

    #[test]
    fn where_functions_are_looked_for() {
        let patterns = Patterns::parse(&["main", "libssl*!SSL_*", "*!*alloc*", "!*free*"]);
        let patterns = patterns.expect("they parse");
        let found = |module, is_executable, name| {
            let module = Called { name: module, other_names: &[], is_executable };
            patterns.find(&module, name).map(|found| found.text())
        };
        assert_eq!(found("app", true, "main"), Some("main"));
        assert_eq!(found("libc.so.6", false, "main"), None);
        assert_eq!(found("libssl.so.3", false, "SSL_read"), Some("libssl*!SSL_*"));
        assert_eq!(found("libssl.so.3", false, "SSL_free"), None);
        assert_eq!(found("x", false, "my::alloc::Raw"), Some("*!*alloc*"));
        let library = Called { name: "lib", other_names: &[], is_executable: false };
        assert!(patterns.concern(&library));
        assert!(!Patterns::parse(&["main"]).expect("it parses").concern(&library));
    }

    #[test]
    fn a_module_goes_by_each_of_its_names() {
        let patterns = Patterns::parse(&["libx.so.6!*", "!libx.so!g"]).expect("they parse");
        let names = ["libx.so.6".to_owned(), "libx.so".to_owned()];
        let found = |other_names, function| {
            let module = Called { name: "libx.so.6.0.30", other_names, is_executable: false };
            patterns.concern(&module) && patterns.find(&module, function).is_some()
        };
        assert!(found(&names, "f"));
        assert!(!found(&names, "g"), "left out by its third name");
        assert!(found(&names[..1], "g"));
        assert!(!found(&[], "f"));
    }

    #[test]
    fn names_with_brackets() {
        let patterns = Patterns::parse(&["main.Map[go.shape.int]", "<a::B as c::D>::e*"]);
        let patterns = patterns.expect("they parse");
        let module = Called { name: "x", other_names: &[], is_executable: true };
        assert!(patterns.find(&module, "main.Map[go.shape.int]").is_some());
        assert!(patterns.find(&module, "<a::B as c::D>::e::{{closure}}").is_some());
    }

    #[test]
    fn what_options_mean() {
        let all =
            options("f@args=a,b.c,ret,depth=3,min=250us,if=n>=-4,rate=10/s,in-request,errno,stack");
        assert_eq!(all.args, Args::Only(vec!["a".to_owned(), "b.c".to_owned()]));
        assert!(all.ret && all.in_request && all.errno && all.stack);
        assert_eq!((all.depth, all.rate), (Some(3), 10));
        assert_eq!(all.min, Duration::from_micros(250));
        let condition =
            Condition { path: "n".to_owned(), compare: Compare::GreaterOrEqual, number: -4 };
        assert_eq!(all.conditions, [condition]);
        assert_eq!(options("f"), Options::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "",
            "@ret",
            "!",
            "m!",
            "!f",
            "f@",
            "f@what",
            "f@min=1",
            "f@min=ms",
            "f@depth=9",
            "f@rate=0",
            "f@if=a",
            "f@if=>1",
            "f@if=a>b",
            "f@if=a=>1",
            "!f@ret",
            "f@args=",
            "f@ret,a",
        ] {
            assert!(Patterns::parse(&[text]).is_err(), "{text}");
        }
        let error = Patterns::parse(&["f@min=soon"]).expect_err("it is wrong").to_string();
        assert_eq!(
            error,
            "cannot use `min=soon` of `f@min=soon`: expected a time, as 250us or 1ms"
        );
    }
}
