//! Names that are like one that was not found.

/// Most that are suggested.
const SUGGESTED_MAX: usize = 5;

/// How alike names are that are suggested: twice the pairs of letters they share, of all they have.
const ALIKE: f64 = 0.5;

/// Longest name that is compared.
const NAME_MAX: usize = 200;

/// Looks at names as they go by.
pub(super) struct Near {
    wanted: Vec<Wanted>,
    found: Vec<(f64, String)>,
}

struct Wanted {
    /// What is left of a pattern without wildcards, in lower case.
    plain: String,
    pairs: Vec<[u8; 2]>,
}

impl Near {
    pub(super) fn new(patterns: &[String]) -> Self {
        let wanted = patterns.iter().filter(|text| !text.starts_with('!')).filter_map(|text| {
            let names = text.split('@').next()?;
            let glob = names.rsplit('!').next()?;
            let plain = glob.replace(['*', '?'], "").to_lowercase();
            (plain.len() > 1).then(|| Wanted { pairs: pairs(&plain), plain })
        });
        Self { wanted: wanted.collect(), found: Vec::new() }
    }

    pub(super) fn see(&mut self, name: &str) {
        if self.wanted.is_empty() || name.len() > NAME_MAX {
            return;
        }
        let lower = name.to_lowercase();
        // The last part of a path may be all that somebody remembers.
        let last = lower.rsplit([':', '/', '.']).next().unwrap_or(&lower);
        let (whole, last) = (pairs(&lower), pairs(last));
        let likeness = |wanted: &Wanted| {
            let contained = if lower.contains(&wanted.plain) { 1.0 } else { 0.0 };
            let alike = alike(&wanted.pairs, &whole).max(alike(&wanted.pairs, &last));
            contained + alike
        };
        let best = self.wanted.iter().map(likeness).fold(0.0, f64::max);
        let worst = self.found.last().map_or(0.0, |(likeness, _)| *likeness);
        let full = self.found.len() == SUGGESTED_MAX;
        if best < ALIKE || (full && best <= worst) || self.found.iter().any(|(_, n)| n == name) {
            return;
        }
        let at = self.found.partition_point(|(likeness, _)| *likeness >= best);
        self.found.insert(at, (best, name.to_owned()));
        self.found.truncate(SUGGESTED_MAX);
    }

    pub(super) fn found(self) -> Vec<String> {
        self.found.into_iter().map(|(_, name)| name).collect()
    }
}

/// What to add to a message.
pub(super) fn suggestion(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
    format!("; there are {}", names.join(", "))
}

fn pairs(text: &str) -> Vec<[u8; 2]> {
    let mut pairs: Vec<_> = text.as_bytes().array_windows().copied().collect();
    pairs.sort_unstable();
    pairs
}

/// Twice the pairs in both, by the pairs of both.
fn alike(one: &[[u8; 2]], other: &[[u8; 2]]) -> f64 {
    if one.is_empty() || other.is_empty() {
        return 0.0;
    }
    let (mut a, mut b, mut shared) = (one.iter().peekable(), other.iter().peekable(), 0u32);
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        match left.cmp(right) {
            std::cmp::Ordering::Less => drop(a.next()),
            std::cmp::Ordering::Greater => drop(b.next()),
            std::cmp::Ordering::Equal => {
                shared += 1;
                a.next();
                b.next();
            }
        }
    }
    2.0 * f64::from(shared) / (one.len() + other.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(pattern: &str, names: &[&str]) -> Vec<String> {
        let mut near = Near::new(&[pattern.to_owned()]);
        for name in names {
            near.see(name);
        }
        near.found()
    }

    #[test]
    fn names_that_are_alike_are_found() {
        let names = ["main", "app::handle_request", "app::Handler::new", "memcpy", "std::sort"];
        assert_eq!(near("handle_reqest", &names), ["app::handle_request"]);
        assert_eq!(near("libx!Handle_Request@ret", &names), ["app::handle_request"]);
        assert_eq!(near("HANDLE*", &names), ["app::handle_request", "app::Handler::new"]);
        assert_eq!(near("zzz", &names), [""; 0]);
        assert_eq!(near("*", &names), [""; 0]);
        assert_eq!(suggestion(&["f".to_owned(), "g".to_owned()]), "; there are `f`, `g`");
        assert_eq!(suggestion(&[]), "");
    }
}
