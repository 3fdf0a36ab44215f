//! Which functions are meant, and what is wanted of them: `[MODULE!]GLOB[@OPTION,…]`, or `!GLOB` for
//! those that are not.
//!
//! `*` crosses `::`, `/` and `.`; a name as `remora functions` prints it matches itself, whatever it
//! holds. Without a module the executable is meant, `*!` means all modules. Pure: it knows no process.

mod options;

use globset::{GlobBuilder, GlobMatcher};

pub use options::{Arguments, Comparison, Condition, Options};

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// It names nothing.
    #[error("cannot use the function pattern `{pattern}`: it names no function; `*` means all")]
    Empty {
        /// The pattern.
        pattern: String,
    },
    /// It is no glob.
    #[error("cannot use the function pattern `{pattern}`")]
    Glob {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        #[source]
        source: globset::Error,
    },
    /// An option is not known.
    #[error(
        "cannot use `{option}` in the function pattern `{pattern}`: expected one of {}",
        options::KNOWN
    )]
    UnknownOption {
        /// The pattern.
        pattern: String,
        /// The option.
        option: String,
    },
    /// An option's value is wrong.
    #[error("cannot use `{option}` in the function pattern `{pattern}`: expected {expected}")]
    Option {
        /// The pattern.
        pattern: String,
        /// The option.
        option: String,
        /// What would do.
        expected: &'static str,
    },
    /// What is left out has no options.
    #[error("cannot use options in `{pattern}`: it says what is left out")]
    ExcludeWithOptions {
        /// The pattern.
        pattern: String,
    },
    /// Nothing is left to trace.
    #[error("the function patterns only say what is left out: give one that says what is traced")]
    OnlyExcludes,
}

/// Which files a pattern is about.
#[derive(Clone, Debug)]
enum Modules {
    Executable,
    Named(GlobMatcher),
    All,
}

/// One pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    modules: Modules,
    names: Names,
    options: Options,
}

#[derive(Clone, Debug)]
struct Names {
    exact: String,
    /// `None`: it is a name and no glob.
    glob: Option<GlobMatcher>,
}

impl Names {
    fn new(pattern: &str, glob: &str) -> Result<Self, PatternError> {
        if glob.is_empty() {
            return Err(PatternError::Empty { pattern: pattern.to_owned() });
        }
        // A name may be no glob (`operator[]`), and one may be read as a glob that does not match it
        // (Go's `[...]`, Rust's `{{closure}}`).
        let glob_or_name = match compile(glob) {
            Err(_) if !glob.contains(['*', '?']) => None,
            compiled => Some(compiled.map_err(|source| PatternError::Glob {
                pattern: pattern.to_owned(),
                source,
            })?),
        };
        Ok(Self { exact: glob.to_owned(), glob: glob_or_name })
    }

    fn matches(&self, name: &str) -> bool {
        self.exact == name || self.glob.as_ref().is_some_and(|glob| glob.is_match(name))
    }
}

fn compile(glob: &str) -> Result<GlobMatcher, globset::Error> {
    let mut builder = GlobBuilder::new(glob);
    Ok(builder.literal_separator(false).backslash_escape(true).build()?.compile_matcher())
}

/// A file that functions are looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleName<'a> {
    /// The program itself, by its file name.
    Executable(&'a str),
    /// A library, by its file name.
    Library(&'a str),
}

impl Modules {
    fn hold(&self, module: ModuleName<'_>) -> bool {
        match (self, module) {
            (Self::All, _) | (Self::Executable, ModuleName::Executable(_)) => true,
            (Self::Executable, ModuleName::Library(_)) => false,
            (Self::Named(glob), ModuleName::Executable(name) | ModuleName::Library(name)) => {
                glob.is_match(name)
            }
        }
    }
}

impl Pattern {
    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wanted of the functions.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether functions of a module can match.
    pub fn is_about(&self, module: ModuleName<'_>) -> bool {
        self.modules.hold(module)
    }

    /// Whether a function of a module that it is about matches, by its demangled name.
    pub fn matches(&self, name: &str) -> bool {
        self.names.matches(name)
    }

    /// What is matched of names, without module and options; for messages.
    pub fn glob(&self) -> &str {
        &self.names.exact
    }
}

/// All patterns of a run.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    wanted: Vec<Pattern>,
    unwanted: Vec<Pattern>,
}

impl Patterns {
    /// Reads patterns; none mean no function.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, PatternError> {
        let mut patterns = Self::default();
        for text in texts {
            let text = text.as_ref().trim();
            match text.strip_prefix('!') {
                Some(rest) => patterns.unwanted.push(unwanted(text, rest)?),
                None => patterns.wanted.push(wanted(text)?),
            }
        }
        if patterns.wanted.is_empty() && !patterns.unwanted.is_empty() {
            return Err(PatternError::OnlyExcludes);
        }
        Ok(patterns)
    }

    /// Whether none is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What is wanted, in the order given.
    pub fn wanted(&self) -> &[Pattern] {
        &self.wanted
    }

    /// Whether functions of a module can match.
    pub fn are_about(&self, module: ModuleName<'_>) -> bool {
        self.wanted.iter().any(|pattern| pattern.is_about(module))
    }

    /// The pattern that a function is wanted by: the first that matches, if none says it is not.
    pub fn select(&self, module: ModuleName<'_>, name: &str) -> Option<&Pattern> {
        let fits = |pattern: &&Pattern| pattern.is_about(module) && pattern.matches(name);
        let pattern = self.wanted.iter().find(fits)?;
        (!self.unwanted.iter().any(|pattern| fits(&pattern))).then_some(pattern)
    }
}

fn wanted(text: &str) -> Result<Pattern, PatternError> {
    let (names, options) = split_options(text);
    let (module, glob) = split_module(names);
    let modules = match module {
        None => Modules::Executable,
        Some(module) => modules(text, module)?,
    };
    let options = match options {
        Some(options) => options::parse(text, options)?,
        None => Options::default(),
    };
    Ok(Pattern { text: text.to_owned(), modules, names: Names::new(text, glob)?, options })
}

/// Without a module it is left out of all.
fn unwanted(text: &str, rest: &str) -> Result<Pattern, PatternError> {
    if split_options(rest).1.is_some() {
        return Err(PatternError::ExcludeWithOptions { pattern: text.to_owned() });
    }
    let (module, glob) = split_module(rest);
    let modules = match module {
        None => Modules::All,
        Some(module) => modules(text, module)?,
    };
    let options = Options::default();
    Ok(Pattern { text: text.to_owned(), modules, names: Names::new(text, glob)?, options })
}

fn modules(pattern: &str, module: &str) -> Result<Modules, PatternError> {
    match module {
        "" => Err(PatternError::Empty { pattern: pattern.to_owned() }),
        "*" => Ok(Modules::All),
        module => compile(module)
            .map(Modules::Named)
            .map_err(|source| PatternError::Glob { pattern: pattern.to_owned(), source }),
    }
}

/// At the first `!` that is none of C++'s `operator!` and `operator!=`; no file's glob has a colon.
fn split_module(text: &str) -> (Option<&str>, &str) {
    match text.split_once('!') {
        Some((module, glob)) if !module.contains(':') && !module.ends_with("operator") => {
            (Some(module), glob)
        }
        _ => (None, text),
    }
}

/// At the first `@` with a letter behind it. Names have one before a digit at most (versions).
fn split_options(text: &str) -> (&str, Option<&str>) {
    let mut marks = text.match_indices('@');
    let split = marks.find(|(at, _)| {
        let next = text.get(at + 1..).and_then(|rest| rest.chars().next());
        next.is_none_or(|next| next.is_ascii_lowercase())
    });
    match split {
        Some((at, _)) => {
            let (names, options) = text.split_at(at);
            (names, options.get(1..))
        }
        None => (text, None),
    }
}

#[cfg(test)]
mod tests;
