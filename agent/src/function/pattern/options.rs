//! What is wanted of a function: `@args=a,b.c,ret,min=1ms`.

use std::time::Duration;

use super::PatternError;

/// The options, for messages.
pub(super) const KNOWN: &str = "args=auto, args=none, args=NAME,…, ret, depth=N, min=TIME, if=NAME>N, rate=N/s, in-request, stack";

/// Options that are a word of their own; in a list of arguments they end the list.
const WORDS: [&str; 3] = ["ret", "in-request", "stack"];

/// Deepest that values are followed.
const DEPTH_MAX: u8 = 8;

/// Most spans of a function a second that can be asked for.
const RATE_MAX: u32 = 1_000_000;

/// What is wanted of functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `args=`: which arguments are told.
    pub arguments: Arguments,
    /// `ret`: whether the return value is told.
    pub returned: bool,
    /// `depth=`: how many pointers and structures deep values are followed.
    pub depth: Option<u8>,
    /// `min=`: calls that took less are not told.
    pub minimum: Option<Duration>,
    /// `if=`: calls for which it does not hold are not told.
    pub condition: Option<Condition>,
    /// `rate=`: most calls a second that are told.
    pub rate: Option<u32>,
    /// `in-request`: only calls that serve a request.
    pub in_request: bool,
    /// `stack`: tell who called.
    pub stack: bool,
}

/// Which arguments are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arguments {
    /// Those that say something in few bytes.
    #[default]
    Auto,
    /// None.
    None,
    /// These: names, or paths into structures as `request.user.id`.
    Only(Vec<String>),
}

/// What an argument is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The argument, or a path into it.
    pub path: String,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: i64,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==` or `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// Longer signs before those that begin them.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

pub(super) fn parse(pattern: &str, text: &str) -> Result<Options, PatternError> {
    let mut options = Options::default();
    let mut parts = text.split(',').peekable();
    while let Some(part) = parts.next() {
        let wrong = |expected| PatternError::Option {
            pattern: pattern.to_owned(),
            option: part.to_owned(),
            expected,
        };
        let unknown =
            || PatternError::UnknownOption { pattern: pattern.to_owned(), option: part.to_owned() };
        match part.split_once('=') {
            None if part == "ret" => options.returned = true,
            None if part == "in-request" => options.in_request = true,
            None if part == "stack" => options.stack = true,
            None => return Err(unknown()),
            Some(("args", first)) => {
                let mut names = vec![first];
                while let Some(name) =
                    parts.next_if(|part| !part.contains('=') && !WORDS.contains(part))
                {
                    names.push(name);
                }
                options.arguments = arguments(&names)
                    .ok_or_else(|| wrong("auto, none, or names as `args=user.id,count`"))?;
            }
            Some(("depth", value)) => {
                let depth = value.parse().ok().filter(|depth| *depth <= DEPTH_MAX);
                options.depth = Some(depth.ok_or_else(|| wrong("a number from 0 to 8"))?);
            }
            Some(("min", value)) => {
                let expected = "a time as 500us, 1ms or 2s";
                options.minimum = Some(time(value).ok_or_else(|| wrong(expected))?);
            }
            Some(("if", value)) => {
                let expected = "an argument, a comparison and a number, as `if=size>4096`";
                options.condition = Some(condition(value).ok_or_else(|| wrong(expected))?);
            }
            Some(("rate", value)) => {
                let number = value.strip_suffix("/s").and_then(|number| number.parse().ok());
                let rate = number.filter(|rate| (1..=RATE_MAX).contains(rate));
                options.rate = Some(rate.ok_or_else(|| wrong("calls a second, as 100/s"))?);
            }
            Some(_) => return Err(unknown()),
        }
    }
    Ok(options)
}

fn arguments(names: &[&str]) -> Option<Arguments> {
    match names {
        ["auto"] => Some(Arguments::Auto),
        ["none"] => Some(Arguments::None),
        names if names.iter().all(|name| is_path(name)) => {
            Some(Arguments::Only(names.iter().map(|name| (*name).to_owned()).collect()))
        }
        _ => None,
    }
}

/// Names with dots between them.
fn is_path(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
    };
    text.split('.').all(is_name)
}

fn time(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "ns" => Duration::from_nanos(number),
        "us" | "µs" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return None,
    })
}

fn condition(text: &str) -> Option<Condition> {
    let at = text.find(['=', '!', '<', '>'])?;
    let (path, rest) = text.split_at(at);
    let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign))?;
    let value = rest.strip_prefix(sign)?;
    let value = match value.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok()?,
        None => value.parse().ok()?,
    };
    is_path(path).then(|| Condition { path: path.to_owned(), comparison: *comparison, value })
}
