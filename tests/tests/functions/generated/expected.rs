//! What is to be told of a value, and whether what was told is that: every part as it is, or a reason why it
//! is not known.

use std::collections::BTreeMap;

/// What a value is to look like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// This text.
    Is(String),
    /// Text, in quotes within another value. Its address may be told instead.
    Text(String),
    /// An address that only the program knows.
    Address,
    /// Nothing but a reason.
    Unreadable,
    /// What is not looked into, as Go's maps; nothing within a value.
    Any,
    /// `{a: 1, b: 2}`; those without a name are told without.
    Members(Vec<(String, Expected)>),
    /// `(1, 2)`, with a name before it or none.
    Tuple(&'static str, Vec<Expected>),
    /// `Name {a: 1}`
    Named(&'static str, Box<Expected>),
    /// Go's error, of which the text may be missing.
    Error(&'static str, String),
    /// `[1, 2]`; some of them may be left out, and all if there is no room.
    List(Vec<Expected>),
    /// What a pointer leads to: with an `&`, or its address.
    Behind(Box<Expected>),
    /// What a reference leads to, or its address.
    Referred(Box<Expected>),
}

/// What was told, and what was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Numbers, texts and addresses that were told.
    pub(crate) told: u64,
    /// Reasons that were given instead.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Tally {
    /// What was not told, of any kind but the floats, which cannot be.
    pub(crate) fn untold(&self) -> u64 {
        let counted = self.reasons.iter().filter(|(reason, _)| !reason.starts_with("floats"));
        counted.map(|(_, count)| count).sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.told += other.told;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }
}

/// Reasons that are known; any other text in angle brackets would be one that the agent made up.
const REASONS: [&str; 12] = [
    "floats are not readable",
    "optimised out",
    "no location here",
    "not stored yet",
    "location not understood",
    "returned on the stack",
    "calling convention unknown",
    "altered by the optimiser",
    "type unknown",
    "too long",
    "unreadable memory",
    "not valid",
];

impl Expected {
    /// Whether `told` is this, or says why not.
    pub(crate) fn is(&self, told: &str, tally: &mut Tally) -> bool {
        let mut own = Tally::default();
        let is = self.eat(told, true, &mut own) == Some("");
        if is {
            tally.add(&own);
        }
        is
    }

    /// What is left behind this value.
    fn eat<'t>(&self, told: &'t str, bare: bool, tally: &mut Tally) -> Option<&'t str> {
        if let Some(rest) = told.strip_prefix('<')
            && let Some((reason, rest)) = rest.split_once('>')
            && REASONS.contains(&reason)
        {
            *tally.reasons.entry(reason.to_owned()).or_default() += 1;
            return Some(rest);
        }
        let before = tally.told;
        tally.told += 1;
        match self {
            Self::Is(text) => {
                let rest = told.strip_prefix(text.as_str())?;
                // A number does not go on.
                let goes_on = text.ends_with(|c: char| c.is_alphanumeric())
                    && rest.starts_with(|c: char| c.is_alphanumeric());
                (!goes_on).then_some(rest)
            }
            Self::Text(text) if bare && told == text => Some(""),
            Self::Text(text) => {
                told.strip_prefix(format!("{text:?}").as_str()).or_else(|| address(told))
            }
            Self::Address => address(told),
            Self::Unreadable => None,
            Self::Any if bare => Some(""),
            Self::Any => any(told),
            Self::Members(members) => {
                tally.told = before;
                let mut rest = told.strip_prefix('{')?;
                for (number, (name, value)) in members.iter().enumerate() {
                    if number > 0 {
                        rest = rest.strip_prefix(", ")?;
                    }
                    // What lies too far from the beginning is left out.
                    if let Some(rest) = rest.strip_prefix("…}") {
                        return Some(rest);
                    }
                    if !name.is_empty() {
                        rest = rest.strip_prefix(name.as_str())?.strip_prefix(": ")?;
                    }
                    rest = value.eat(rest, false, tally)?;
                }
                rest.strip_prefix('}')
            }
            Self::Tuple(name, values) => {
                tally.told = before;
                let mut rest = told.strip_prefix(name)?.strip_prefix('(')?;
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        rest = rest.strip_prefix(", ")?;
                    }
                    rest = value.eat(rest, false, tally)?;
                }
                rest.strip_prefix(')')
            }
            Self::Error(name, text) => {
                let rest = told.strip_prefix(name)?;
                let text = format!("({text:?})");
                Some(rest.strip_prefix(text.as_str()).unwrap_or(rest))
            }
            Self::Named(name, value) => {
                tally.told = before;
                value.eat(told.strip_prefix(name)?.strip_prefix(' ')?, false, tally)
            }
            Self::List(values) => {
                tally.told = before;
                let mut rest = told.strip_prefix('[')?;
                if let Some(rest) =
                    rest.strip_prefix(format!("{} elements]", values.len()).as_str())
                {
                    return Some(rest);
                }
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        rest = rest.strip_prefix(", ")?;
                    }
                    if let Some(rest) = rest.strip_prefix('…') {
                        let count = format!(" {} elements", values.len());
                        return rest.strip_prefix(count.as_str()).unwrap_or(rest).strip_prefix(']');
                    }
                    rest = value.eat(rest, false, tally)?;
                }
                rest.strip_prefix(']')
            }
            Self::Behind(value) => {
                if let Some(rest) = address(told) {
                    return Some(rest);
                }
                tally.told = before;
                value.eat(told.strip_prefix('&')?, false, tally)
            }
            Self::Referred(value) => {
                if let Some(rest) = address(told) {
                    return Some(rest);
                }
                tally.told = before;
                value.eat(told, bare, tally)
            }
        }
    }
}

/// What is behind an address.
fn address(told: &str) -> Option<&str> {
    let rest = told.strip_prefix("0x")?;
    let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    (1..=16).contains(&digits).then(|| &rest[digits..])
}

/// What is behind an address, or behind a value without text.
fn any(told: &str) -> Option<&str> {
    let Some(rest) = told.strip_prefix("&{") else {
        return address(told).or_else(|| told.strip_prefix("null"));
    };
    let mut depth = 1;
    let end = rest.find(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    end.map(|end| &rest[end + 1..])
}

#[test]
fn only_what_is_right_is_right() {
    let is = |text: &str| Expected::Is(text.to_owned());
    let whole = Expected::Members(vec![
        ("a".to_owned(), is("1")),
        ("b".to_owned(), Expected::Text("x".to_owned())),
        ("c".to_owned(), Expected::List(vec![is("1"), is("2")])),
        ("d".to_owned(), Expected::Unreadable),
    ]);
    let floats = "<floats are not readable>";
    for (told, right) in [
        (format!("{{a: 1, b: \"x\", c: [1, 2], d: {floats}}}"), true),
        (format!("{{a: 1, b: 0x7f0000, c: [1, …], d: {floats}}}"), true),
        (format!("{{a: <not stored yet>, b: \"x\", c: [2 elements], d: {floats}}}"), true),
        ("<type unknown>".to_owned(), true),
        (format!("{{a: 12, b: \"x\", c: [1, 2], d: {floats}}}"), false),
        (format!("{{a: 1, b: \"x\", c: [1, 2, 3], d: {floats}}}"), false),
        ("{a: 1, b: \"x\", c: [1, 2], d: 0}".to_owned(), false),
        ("<odd>".to_owned(), false),
    ] {
        assert_eq!(whole.is(&told, &mut Tally::default()), right, "{told}");
    }
    let behind = Expected::Behind(Box::new(is("-7")));
    for (told, right) in [("&-7", true), ("0x1234", true), ("&7", false), ("-7", false)] {
        assert_eq!(behind.is(told, &mut Tally::default()), right, "{told}");
    }
}
