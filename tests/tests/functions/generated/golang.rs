//! Programs in Go: functions of any signature, and what they are given.

use std::fmt::Write as _;
use std::rc::Rc;

use super::dice::Dice;
use super::expected::Expected;
use super::planned::{Function, Outcome, Planned, ROWS};

/// What all of them begin with.
const HEAD: &str = include_str!("../../../programs/functions/made/log.go");

/// Types within types.
const NESTED_MAX: u32 = 2;

struct Type {
    name: String,
    shape: Shape,
}

enum Shape {
    Int {
        bits: u32,
        signed: bool,
    },
    Bool,
    Float,
    String,
    Bytes,
    Error,
    Any,
    /// A map, a function, a channel: how one is made.
    Opaque(&'static str),
    Pointer(Rc<Type>),
    Struct(Vec<(String, Rc<Type>)>),
    Array(Rc<Type>, usize),
    Slice(Rc<Type>),
}

/// Makes up a program.
pub(crate) fn program(seed: u64) -> Planned {
    let dice = Dice::new(seed ^ 0x676f);
    let mut maker = Maker { dice, types: Vec::new(), declared: String::new(), next: 0 };
    maker.program()
}

struct Maker {
    dice: Dice,
    types: Vec<Rc<Type>>,
    declared: String,
    next: usize,
}

struct Draft {
    parameters: Vec<(String, Rc<Type>, bool)>,
    results: Vec<Rc<Type>>,
    named: bool,
    tail: Option<usize>,
    calls: Vec<usize>,
    /// Whether something is deferred.
    defers: bool,
}

impl Maker {
    fn program(&mut self) -> Planned {
        for _ in 0..12 {
            let ty = self.ty(0);
            self.types.push(ty);
        }
        let count = 24;
        let mut drafts: Vec<Draft> = (0..count).map(|number| self.draft(number, count)).collect();
        for number in (0..count).rev() {
            if let Some(to) = drafts[number].tail {
                drafts[number].results = drafts[to].results.clone();
            }
        }
        let mut bodies = String::new();
        let mut functions = Vec::new();
        for (number, draft) in drafts.iter().enumerate() {
            let mut parameters = Vec::new();
            for (name, ty, _) in &draft.parameters {
                let rows = self.rows(&format!("row_{number}_{name}"), ty, &mut bodies);
                parameters.push((name.clone(), rows));
            }
            let result = match draft.tail {
                Some(_) => Outcome::Callee,
                None if draft.results.is_empty() => Outcome::Nothing,
                None => {
                    let mut all = vec![Vec::new(); ROWS];
                    for (which, ty) in draft.results.iter().enumerate() {
                        let rows = self.rows(&format!("row_{number}_r{which}"), ty, &mut bodies);
                        for (row, value) in all.iter_mut().zip(rows) {
                            row.push(value);
                        }
                    }
                    let one = |mut row: Vec<Expected>| match row.len() {
                        1 => row.remove(0),
                        _ => Expected::Tuple("", row),
                    };
                    Outcome::Rows(all.into_iter().map(one).collect())
                }
            };
            let head = self.body(number, draft, &drafts, &mut bodies);
            functions.push(Function { parameters, result, head });
        }
        let mut main = String::new();
        for (number, draft) in drafts.iter().enumerate() {
            for _ in 0..2 {
                let call = expression(number, draft);
                let _ = writeln!(main, "\tbegin()\n\t{{ n := next[{number}]; _ = n; {call} }}");
            }
        }
        let source =
            format!("{HEAD}\n{}\n{bodies}\nfunc main() {{\n{main}\tend()\n}}\n", self.declared);
        Planned { source, functions, stacks_are_close: false }
    }

    fn draft(&mut self, number: usize, count: usize) -> Draft {
        let given = if self.dice.percent(70) { self.dice.below(5) } else { 3 + self.dice.below(8) };
        let parameters = (0..given)
            .map(|number| (format!("p{number}"), self.any_type(), self.dice.percent(70)))
            .collect();
        let later = count - number - 1;
        let calls = self.dice.calls(number, count, 60);
        let results = match self.dice.below(6) {
            0 => 0,
            1..=3 => 1,
            _ => 2 + self.dice.below(3),
        };
        let results = (0..results).map(|_| self.any_type()).collect();
        let tail =
            (later > 0 && self.dice.percent(12)).then(|| number + 1 + self.dice.below(later));
        let (named, defers) = (self.dice.percent(40), tail.is_none() && self.dice.percent(15));
        Draft { parameters, results, named, tail, calls, defers }
    }

    fn any_type(&mut self) -> Rc<Type> {
        if self.dice.percent(50) { self.dice.one(&self.types).clone() } else { self.scalar() }
    }

    fn scalar(&mut self) -> Rc<Type> {
        let int = |name: &str, bits, signed| (name.to_owned(), Shape::Int { bits, signed });
        let (name, shape) = match self.dice.below(20) {
            0 => int("int8", 8, true),
            1 => int("uint8", 8, false),
            2 => int("int16", 16, true),
            3 => int("uint16", 16, false),
            4 => int("int32", 32, true),
            5 => int("uint32", 32, false),
            6 | 7 => int("int", 64, true),
            8 => int("int64", 64, true),
            9 => int("uint64", 64, false),
            10 => int("uintptr", 64, false),
            11 => ("bool".to_owned(), Shape::Bool),
            12 => ("float32".to_owned(), Shape::Float),
            13 => ("float64".to_owned(), Shape::Float),
            14 if self.dice.percent(50) => ("complex128".to_owned(), Shape::Float),
            14 => ("complex64".to_owned(), Shape::Float),
            15 | 16 => ("string".to_owned(), Shape::String),
            17 => ("error".to_owned(), Shape::Error),
            18 => ("any".to_owned(), Shape::Any),
            _ => ("[]byte".to_owned(), Shape::Bytes),
        };
        Rc::new(Type { name, shape })
    }

    fn inner(&mut self, depth: u32) -> Rc<Type> {
        if depth < NESTED_MAX && self.dice.percent(30) {
            let ty = self.ty(depth + 1);
            if !matches!(ty.shape, Shape::Opaque(_)) {
                return ty;
            }
        }
        self.scalar()
    }

    fn ty(&mut self, depth: u32) -> Rc<Type> {
        let (name, shape) = match self.dice.below(16) {
            0..=2 => {
                let of = loop {
                    let of = self.inner(depth);
                    // What is not followed is an address.
                    if !matches!(of.shape, Shape::Float | Shape::Int { bits: 8, .. }) {
                        break of;
                    }
                };
                (format!("*{}", of.name), Shape::Pointer(of))
            }
            3 => {
                let (of, count) = (self.inner(depth), 1 + self.dice.below(3));
                (format!("[{count}]{}", of.name), Shape::Array(of, count))
            }
            4 | 5 => {
                let of = loop {
                    let of = self.inner(depth);
                    if !matches!(of.shape, Shape::Int { bits: 8, signed: false }) {
                        break of;
                    }
                };
                (format!("[]{}", of.name), Shape::Slice(of))
            }
            6 => ("map[string]int".to_owned(), Shape::Opaque("map[string]int{\"a\": 1}")),
            7 => ("func(int) int".to_owned(), Shape::Opaque("twice")),
            8 => ("chan int".to_owned(), Shape::Opaque("make(chan int)")),
            9 => {
                self.next += 1;
                let of = loop {
                    let of = self.scalar();
                    if matches!(of.shape, Shape::Int { .. } | Shape::Bool | Shape::String) {
                        break of;
                    }
                };
                let name = format!("N{}", self.next);
                let _ = writeln!(self.declared, "type {name} {}", of.name);
                let shape = match of.shape {
                    Shape::Int { bits, signed } => Shape::Int { bits, signed },
                    Shape::Bool => Shape::Bool,
                    _ => Shape::String,
                };
                (name, shape)
            }
            _ => {
                self.next += 1;
                let name = format!("S{}", self.next);
                let fields: Vec<(String, Rc<Type>)> = (0..1 + self.dice.below(5))
                    .map(|n| (format!("M{n}"), self.inner(depth)))
                    .collect();
                let text: String =
                    fields.iter().map(|(name, ty)| format!("\t{name} {}\n", ty.name)).collect();
                let _ = writeln!(self.declared, "type {name} struct {{\n{text}}}");
                (name, Shape::Struct(fields))
            }
        };
        Rc::new(Type { name, shape })
    }

    /// A function that gives the values of each row.
    fn rows(&mut self, name: &str, ty: &Type, out: &mut String) -> Vec<Expected> {
        let _ = writeln!(
            out,
            "//go:noinline\nfunc {name}(n int) {} {{\n\tswitch n % {ROWS} {{",
            ty.name
        );
        let mut told = Vec::new();
        for row in 0..ROWS {
            let (text, expected) = self.value(ty);
            let arm = if row + 1 == ROWS { "default".to_owned() } else { format!("case {row}") };
            let _ = writeln!(out, "\t{arm}:\n\t\treturn {text}");
            told.push(expected);
        }
        out.push_str("\t}\n}\n");
        told
    }

    fn value(&mut self, ty: &Type) -> (String, Expected) {
        match &ty.shape {
            Shape::Int { bits, signed } => {
                let number = self.dice.number(*bits, *signed);
                (format!("{}({number})", ty.name), Expected::Is(number.to_string()))
            }
            Shape::Bool => {
                let truth = self.dice.percent(50).to_string();
                (format!("{}({truth})", ty.name), Expected::Is(truth))
            }
            Shape::Float if ty.name.starts_with('c') => {
                ("(1.5 + 2i)".to_owned(), Expected::Unreadable)
            }
            Shape::Float => ("1.5".to_owned(), Expected::Unreadable),
            Shape::String => {
                let text = self.text();
                (format!("{}({text:?})", ty.name), Expected::Text(text))
            }
            Shape::Bytes => {
                let text = self.text();
                (format!("[]byte({text:?})"), Expected::Text(text))
            }
            Shape::Error => {
                if self.dice.percent(40) {
                    return ("nil".to_owned(), Expected::Is("nil".to_owned()));
                }
                let text = self.text();
                let told = Expected::Error("*errors.errorString", text.clone());
                (format!("errors.New({text:?})"), told)
            }
            Shape::Any => match self.dice.below(4) {
                0 => ("nil".to_owned(), Expected::Is("nil".to_owned())),
                1 => ("int(7)".to_owned(), Expected::Is("int".to_owned())),
                2 => ("\"text\"".to_owned(), Expected::Is("string".to_owned())),
                _ => ("own{1}".to_owned(), Expected::Is("main.own".to_owned())),
            },
            Shape::Opaque(made) => ((*made).to_owned(), Expected::Any),
            Shape::Pointer(to) => {
                if self.dice.percent(20) {
                    return ("nil".to_owned(), Expected::Is("null".to_owned()));
                }
                let (text, told) = self.value(to);
                (format!("there[{}]({text})", to.name), Expected::Behind(Box::new(told)))
            }
            Shape::Struct(fields) => {
                let mut texts = Vec::new();
                let mut told = Vec::new();
                for (name, ty) in fields {
                    let (value, expected) = self.value(ty);
                    texts.push(value);
                    told.push((name.clone(), expected));
                }
                (format!("{}{{{}}}", ty.name, texts.join(", ")), Expected::Members(told))
            }
            Shape::Array(of, count) => self.list(ty, of, *count),
            Shape::Slice(of) => {
                let count = self.dice.below(4);
                self.list(ty, of, count)
            }
        }
    }

    fn list(&mut self, ty: &Type, of: &Type, count: usize) -> (String, Expected) {
        let (texts, told): (Vec<_>, Vec<_>) = (0..count).map(|_| self.value(of)).unzip();
        let told = Expected::List(told.into_iter().map(plain).collect());
        (format!("{}{{{}}}", ty.name, texts.join(", ")), told)
    }

    fn text(&mut self) -> String {
        let length = self.dice.below(12);
        (0..length).map(|_| *self.dice.one(&['a', 'b', 'c', 'x', 'ä', ' '])).collect()
    }

    fn body(&mut self, number: usize, draft: &Draft, all: &[Draft], out: &mut String) -> String {
        let given: Vec<String> =
            draft.parameters.iter().map(|(name, ty, _)| format!("{name} {}", ty.name)).collect();
        let results: Vec<String> = draft
            .results
            .iter()
            .enumerate()
            .map(|(n, ty)| if draft.named { format!("r{n} {}", ty.name) } else { ty.name.clone() })
            .collect();
        let head = format!("func g_{number}({}) ({})", given.join(", "), results.join(", "));
        let _ = writeln!(
            out,
            "//go:noinline\n{head} {{\n\tentered({number})\n\tn := next[{number}]\n\tnext[{number}]++\n\t_ = n"
        );
        if draft.defers {
            out.push_str("\tdefer func() { touched++ }()\n");
        }
        let late = self.dice.percent(50);
        let uses = |out: &mut String, early: bool| {
            for (name, _, used) in &draft.parameters {
                if *used && early != late {
                    let _ = writeln!(out, "\tuse(&{name})");
                }
            }
        };
        uses(out, true);
        for call in &draft.calls {
            let text = expression(*call, &all[*call]);
            let _ = writeln!(out, "\tif mayCall() {{ n := next[{call}]; _ = n; {text} }}");
        }
        uses(out, false);
        match draft.tail {
            Some(to) => {
                let call = expression(to, &all[to]);
                let give = if draft.results.is_empty() { "" } else { "return " };
                let _ = writeln!(out, "\tn = next[{to}]\n\tleaves({number})\n\t{give}{call}\n}}");
            }
            None => {
                let results: Vec<String> = (0..draft.results.len())
                    .map(|which| format!("row_{number}_r{which}(n)"))
                    .collect();
                // The log ends before what is returned is made; that calls nobody.
                let _ = writeln!(out, "\tleft({number})\n\treturn {}\n}}", results.join(", "));
            }
        }
        head
    }
}

/// A call with the arguments of row `n`.
fn expression(number: usize, draft: &Draft) -> String {
    let given: Vec<String> =
        draft.parameters.iter().map(|(name, _, _)| format!("row_{number}_{name}(n)")).collect();
    format!("g_{number}({})", given.join(", "))
}

/// What is told of an element: nothing is followed from within a list.
fn plain(told: Expected) -> Expected {
    match told {
        Expected::Behind(_) => Expected::Address,
        other => other,
    }
}
