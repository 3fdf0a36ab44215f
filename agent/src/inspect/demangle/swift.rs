//! Names of Swift's functions, as far as a name can be read without its types: the path of a function,
//! a method, an accessor or an initialiser. Closures, local functions, private declarations, operators,
//! thunks and specialisations keep their mangled names (Swift's documentation, `ABI/Mangling.rst`).

/// Prefixes of the scheme that has been stable since Swift 5, and of Swift 4's last ones.
pub(super) const PREFIXES: [&str; 4] = ["$s", "_$s", "$S", "_$S"];

/// Most words of one name that later ones can refer to.
const WORDS_MAX: usize = 26;

/// `Module.Type.method`, or nothing if that is not all that the name says.
pub(super) fn path(mangled: &str) -> Option<String> {
    let rest = PREFIXES.iter().find_map(|prefix| mangled.strip_prefix(prefix))?;
    let mut reader = Reader { rest, words: Vec::new() };
    let mut path = reader.module()?;
    let mut is_class = false;
    let mut name = None;
    while let Some(part) = reader.identifier() {
        match reader.rest.as_bytes().first()? {
            kind @ (b'C' | b'V' | b'O' | b'P') => {
                is_class = *kind == b'C';
                path = format!("{path}.{part}");
                reader.skip(1);
            }
            // The module of an extension.
            b'E' => reader.skip(1),
            _ => {
                name = Some(part);
                break;
            }
        }
    }
    let tail = reader.rest.strip_suffix('Z').unwrap_or(reader.rest);
    let endings = ["vg", "vs", "vM", "fC", "fc", "fD", "fd", "F"];
    let ending = endings.into_iter().find(|ending| tail.ends_with(ending))?;
    let types = tail.strip_suffix(ending)?;
    // What lies within a function has the function's type in its name; only reading all types would
    // tell it from a type that merely has these letters. Operators and macros are marked at once.
    if types.contains(['F', 'L', 'U']) || types.starts_with(['o', 'f']) {
        return None;
    }
    let last = match (ending, name) {
        ("F", Some(name)) => name,
        ("vg", Some(name)) => format!("{name}.getter"),
        ("vs", Some(name)) => format!("{name}.setter"),
        ("vM", Some(name)) => format!("{name}.modify"),
        // The name is a label of the first argument.
        ("fC", _) if is_class => "__allocating_init".to_owned(),
        ("fC" | "fc", _) => "init".to_owned(),
        ("fD", None) if types.is_empty() => "__deallocating_deinit".to_owned(),
        ("fd", None) if types.is_empty() => "deinit".to_owned(),
        _ => return None,
    };
    Some(format!("{path}.{last}"))
}

struct Reader<'a> {
    rest: &'a str,
    words: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// The module, or the type of the standard library that is extended.
    fn module(&mut self) -> Option<String> {
        let standard = [
            ("So", "__C"),
            ("Sa", "Swift.Array"),
            ("Sb", "Swift.Bool"),
            ("SD", "Swift.Dictionary"),
            ("Sd", "Swift.Double"),
            ("Sf", "Swift.Float"),
            ("Sh", "Swift.Set"),
            ("Si", "Swift.Int"),
            ("SJ", "Swift.Character"),
            ("Sq", "Swift.Optional"),
            ("SS", "Swift.String"),
            ("Ss", "Swift.Substring"),
            ("Su", "Swift.UInt"),
            ("s", "Swift"),
        ];
        let known = standard.into_iter().find(|(short, _)| self.rest.starts_with(short));
        if let Some((short, module)) = known {
            self.skip(short.len());
            return Some(module.to_owned());
        }
        self.identifier()
    }

    /// A name, with the words that it has in common with names before it put in.
    fn identifier(&mut self) -> Option<String> {
        if !self.rest.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let mut abbreviated = self.rest.starts_with('0');
        if abbreviated {
            self.skip(1);
        }
        let mut name = String::new();
        loop {
            while abbreviated && self.rest.starts_with(|next: char| next.is_ascii_alphabetic()) {
                let letter = self.rest.as_bytes()[0];
                name += self.words.get(usize::from(letter.to_ascii_lowercase() - b'a'))?;
                abbreviated = letter.is_ascii_lowercase();
                self.skip(1);
            }
            if !name.is_empty() && self.rest.starts_with('0') {
                self.skip(1);
                return Some(name);
            }
            let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
            // What begins with a second zero is Punycode.
            let length = self.rest[..digits].parse::<usize>().ok().filter(|length| *length > 0)?;
            self.skip(digits);
            let part = self.rest.get(..length)?;
            self.skip(length);
            self.remember(part);
            name += part;
            if !abbreviated {
                return Some(name);
            }
        }
    }

    /// Words begin at letters and end before `_` and before a capital that follows a small letter.
    fn remember(&mut self, part: &'a str) {
        let bytes = part.as_bytes();
        let mut begin = None;
        for at in 0..=bytes.len() {
            let (last, next) = (at.checked_sub(1).map(|last| bytes[last]), bytes.get(at));
            let ends = next.is_none_or(|next| {
                *next == b'_'
                    || next.is_ascii_uppercase()
                        && last.is_some_and(|last| !last.is_ascii_uppercase())
            });
            if let Some(from) = begin.filter(|_| ends) {
                let word = part.get(from..at).filter(|word| word.len() >= 2);
                self.words.extend(word.filter(|_| self.words.len() < WORDS_MAX));
                begin = None;
            }
            if begin.is_none() && next.is_some_and(|next| *next != b'_' && !next.is_ascii_digit()) {
                begin = Some(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as Swift's mangling rules make them.
    #[test]
    fn a_path_is_right_or_not_told() {
        for (mangled, expected) in [
            ("$s4main3fooyyF", Some("main.foo")),
            ("_$S3abc6testityySiF", Some("abc.testit")),
            ("$s7example1fyyYaKF", Some("example.f")),
            (
                "$s4main19returnInstantiationSo34__CxxTemplateInst12MagicWrapperIiEVyF",
                Some("main.returnInstantiation"),
            ),
            ("$S3foo3barC3bas3zimyAaEC_tF", Some("foo.bar.bas")),
            ("$sSo17OS_dispatch_queueC4sync7executeyyyXE_tF", Some("__C.OS_dispatch_queue.sync")),
            (
                "$s4Test5ProtoP8IteratorV10collectionAEy_qd__Gqd___tcfc",
                Some("Test.Proto.Iterator.init"),
            ),
            ("$s4test3StrCACycfC", Some("test.Str.__allocating_init")),
            ("$s4test3StrVACycfC", Some("test.Str.init")),
            ("$S3nix7MyclassCfd", Some("nix.Myclass.deinit")),
            ("$S3nix7MyclassCfD", Some("nix.Myclass.__deallocating_deinit")),
            ("$s4main7CounterV5valueSivg", Some("main.Counter.value.getter")),
            ("$s4main7CounterV5valueSivsZ", Some("main.Counter.value.setter")),
            ("$sSS4mainE5shoutSSyF", Some("Swift.String.shout")),
            // The fourth word is `Model`.
            ("$s3app11MyViewModelC04loadD0yyF", Some("app.MyViewModel.loadModel")),
            (
                "$s18resilient_protocol24ResilientDerivedProtocolP0c4BaseE0yyF",
                Some("resilient_protocol.ResilientDerivedProtocol.ResilientBaseProtocol"),
            ),
            // Something within, beside or made of a function is not the function.
            ("$s4main3fooyySiFyyXEfU_", None),
            ("$s4main5outeryyF5innerL_yyF", None),
            ("$s4main3foo33_0123456789ABCDEF0123456789ABCDEFLLyyF", None),
            ("$s4main1poiyS2i_SitF", None),
            ("$s4main6testityyYaFTu", None),
            ("$S3abc6testityySiFTm", None),
            ("$s4main0B3fooyyF", None),
            ("$s4main99fooyyF", None),
            ("$s004fooyyF", None),
            ("$s", None),
            ("main", None),
        ] {
            assert_eq!(path(mangled).as_deref(), expected, "{mangled}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(rest in "[0-9A-Za-zé_$]{0,40}") {
            let _ = path(&format!("$s{rest}"));
        }
    }
}
