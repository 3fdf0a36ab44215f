//! Programs in Rust: functions of any signature, and what they are given.

use std::fmt::Write as _;
use std::rc::Rc;

use super::dice::Dice;
use super::expected::Expected;
use super::planned::{Function, Outcome, Planned, ROWS};

/// What all of them begin with.
const HEAD: &str = include_str!("../../../programs/functions/made/log.rs");

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
    Char,
    Float,
    Unit,
    Text,
    Owned,
    /// What holds another, and how it is written before and behind.
    Borrowed(Rc<Type>),
    Boxed(Rc<Type>),
    Raw(Rc<Type>),
    Option(Rc<Type>),
    Result(Rc<Type>, Rc<Type>),
    Tuple(Vec<Rc<Type>>),
    /// With names, or without.
    Struct(Vec<(String, Rc<Type>)>),
    Wrapped(Vec<Rc<Type>>),
    Enum(Vec<Variant>),
    Array(Rc<Type>, usize),
    Slice(Rc<Type>),
    Vector(Rc<Type>),
}

struct Variant {
    name: &'static str,
    fields: Vec<Rc<Type>>,
    named: bool,
}

/// Makes up a program.
pub(crate) fn program(seed: u64) -> Planned {
    let mut maker = Maker {
        dice: Dice::new(seed ^ 0x7275_7374),
        types: Vec::new(),
        declared: String::new(),
        next: 0,
    };
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
    result: Option<Rc<Type>>,
    tail: Option<usize>,
    calls: Vec<usize>,
    /// Before `fn`.
    words: &'static str,
}

impl Maker {
    fn program(&mut self) -> Planned {
        for _ in 0..14 {
            let ty = self.ty(0);
            self.types.push(ty);
        }
        let count = 24;
        let mut drafts: Vec<Draft> = (0..count).map(|number| self.draft(number, count)).collect();
        for number in (0..count).rev() {
            if let Some(to) = drafts[number].tail {
                drafts[number].result = drafts[to].result.clone();
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
            let result = match (&draft.result, draft.tail) {
                (_, Some(_)) => Outcome::Callee,
                (None, None) => Outcome::Nothing,
                (Some(ty), None) => {
                    Outcome::Rows(self.rows(&format!("row_{number}_result"), ty, &mut bodies))
                }
            };
            let head = self.body(number, draft, &drafts, &mut bodies);
            functions.push(Function { parameters, result, head });
        }
        let mut main = String::new();
        for (number, draft) in drafts.iter().enumerate() {
            for _ in 0..2 {
                let call = expression(number, draft);
                let _ =
                    writeln!(main, "    begin(); {{ let n = next({number}); black_box({call}); }}");
            }
        }
        let source =
            format!("{HEAD}\n{}\n{bodies}\nfn main() {{\n{main}    end();\n}}\n", self.declared);
        Planned { source, functions, stacks_are_close: false }
    }

    fn draft(&mut self, number: usize, count: usize) -> Draft {
        let given = if self.dice.percent(70) { self.dice.below(5) } else { 3 + self.dice.below(8) };
        let words = *self.dice.one(&[
            "",
            "",
            "pub ",
            "#[unsafe(no_mangle)] pub ",
            "extern \"C\" ",
            "#[unsafe(no_mangle)] pub extern \"C\" ",
        ]);
        let parameters = (0..given)
            .map(|number| (format!("p{number}"), self.any_type(), self.dice.percent(70)))
            .collect();
        let later = count - number - 1;
        let calls = self.dice.calls(number, count, 60);
        let result = (!self.dice.percent(10)).then(|| self.any_type());
        let tail =
            (later > 0 && self.dice.percent(12)).then(|| number + 1 + self.dice.below(later));
        Draft { parameters, result, tail, calls, words }
    }

    fn any_type(&mut self) -> Rc<Type> {
        if self.dice.percent(55) { self.dice.one(&self.types).clone() } else { self.scalar() }
    }

    fn scalar(&mut self) -> Rc<Type> {
        let int = |name: &str, bits, signed| (name.to_owned(), Shape::Int { bits, signed });
        let (name, shape) = match self.dice.below(20) {
            0 => int("i8", 8, true),
            1 => int("u8", 8, false),
            2 => int("i16", 16, true),
            3 => int("u16", 16, false),
            4 | 5 => int("i32", 32, true),
            6 | 7 => int("u32", 32, false),
            8 => int("i64", 64, true),
            9 => int("u64", 64, false),
            10 => int("usize", 64, false),
            11 => int("i128", 128, true),
            12 => int("u128", 128, false),
            13 => ("bool".to_owned(), Shape::Bool),
            14 => ("char".to_owned(), Shape::Char),
            15 => ("f32".to_owned(), Shape::Float),
            16 => ("f64".to_owned(), Shape::Float),
            17 => ("&'static str".to_owned(), Shape::Text),
            18 => ("String".to_owned(), Shape::Owned),
            _ if self.dice.percent(30) => ("()".to_owned(), Shape::Unit),
            _ => int("u16", 16, false),
        };
        Rc::new(Type { name, shape })
    }

    /// A type with bytes: what has none is left out of what holds it.
    fn inner(&mut self, depth: u32) -> Rc<Type> {
        if depth < NESTED_MAX && self.dice.percent(30) {
            return self.ty(depth + 1);
        }
        loop {
            let ty = self.scalar();
            if !matches!(ty.shape, Shape::Unit) {
                return ty;
            }
        }
    }

    fn several(&mut self, depth: u32, most: usize) -> Vec<Rc<Type>> {
        (0..1 + self.dice.below(most)).map(|_| self.inner(depth)).collect()
    }

    fn ty(&mut self, depth: u32) -> Rc<Type> {
        let (name, shape) = match self.dice.below(20) {
            0..=2 => {
                let of = self.inner(depth);
                (format!("Option<{}>", of.name), Shape::Option(of))
            }
            3 | 4 => {
                let (of, error) = (self.inner(depth), self.inner(depth));
                (format!("Result<{}, {}>", of.name, error.name), Shape::Result(of, error))
            }
            5 | 6 => {
                let of = self.several(depth, 3);
                let names: Vec<&str> = of.iter().map(|ty| ty.name.as_str()).collect();
                (format!("({},)", names.join(", ")), Shape::Tuple(of))
            }
            7 => {
                let of = self.inner(depth);
                (format!("&'static {}", of.name), Shape::Borrowed(of))
            }
            8 => {
                let of = self.inner(depth);
                (format!("Box<{}>", of.name), Shape::Boxed(of))
            }
            9 => {
                let of = self.inner(depth);
                (format!("*const {}", of.name), Shape::Raw(of))
            }
            10 => {
                let (of, count) = (self.inner(depth), 1 + self.dice.below(4));
                (format!("[{}; {count}]", of.name), Shape::Array(of, count))
            }
            11 | 12 => {
                // Bytes are told as text.
                let of = loop {
                    let of = self.inner(depth);
                    if !matches!(of.shape, Shape::Int { bits: 8, signed: false }) {
                        break of;
                    }
                };
                if self.dice.percent(50) {
                    (format!("&'static [{}]", of.name), Shape::Slice(of))
                } else {
                    (format!("Vec<{}>", of.name), Shape::Vector(of))
                }
            }
            13..=15 => self.enumeration(depth),
            _ => self.structure(depth),
        };
        Rc::new(Type { name, shape })
    }

    fn structure(&mut self, depth: u32) -> (String, Shape) {
        self.next += 1;
        let name = format!("S{}", self.next);
        let fields = self.several(depth, 5);
        let layout = match self.dice.below(6) {
            0 | 1 => "#[repr(C)]\n",
            2 if fields.len() == 1 => "#[repr(transparent)]\n",
            _ => "",
        };
        if self.dice.percent(25) {
            let names: Vec<&str> = fields.iter().map(|ty| ty.name.as_str()).collect();
            let _ = writeln!(self.declared, "{layout}pub struct {name}({});", names.join(", "));
            return (name, Shape::Wrapped(fields));
        }
        let fields: Vec<(String, Rc<Type>)> =
            fields.into_iter().enumerate().map(|(n, ty)| (format!("m{n}"), ty)).collect();
        let text: String =
            fields.iter().map(|(name, ty)| format!("{name}: {}, ", ty.name)).collect();
        let _ = writeln!(self.declared, "{layout}pub struct {name} {{ {text}}}");
        (name, Shape::Struct(fields))
    }

    fn enumeration(&mut self, depth: u32) -> (String, Shape) {
        const NAMES: [&str; 5] = ["Alpha", "Beta", "Gamma", "Delta", "Omega"];
        self.next += 1;
        let name = format!("E{}", self.next);
        let plain = self.dice.percent(40);
        let mut variants = Vec::new();
        for variant in NAMES.iter().take(1 + self.dice.below(5)) {
            let fields =
                if plain || self.dice.percent(35) { Vec::new() } else { self.several(depth, 2) };
            let named = !fields.is_empty() && self.dice.percent(30);
            variants.push(Variant { name: variant, fields, named });
        }
        let mut text = String::new();
        for variant in &variants {
            let names: Vec<&str> = variant.fields.iter().map(|ty| ty.name.as_str()).collect();
            let _ = match (variant.fields.is_empty(), variant.named) {
                (true, _) => write!(text, "{}, ", variant.name),
                (_, false) => write!(text, "{}({}), ", variant.name, names.join(", ")),
                (_, true) => {
                    let fields: String =
                        names.iter().enumerate().map(|(n, ty)| format!("f{n}: {ty}, ")).collect();
                    write!(text, "{} {{ {fields}}}, ", variant.name)
                }
            };
        }
        let layout =
            *self.dice.one(&["", "", "", "#[repr(u8)]\n", "#[repr(i32)]\n", "#[repr(C)]\n"]);
        let _ = writeln!(self.declared, "{layout}pub enum {name} {{ {text}}}");
        (name, Shape::Enum(variants))
    }

    /// A function that gives the values of each row.
    fn rows(&mut self, name: &str, ty: &Type, out: &mut String) -> Vec<Expected> {
        let _ = writeln!(
            out,
            "#[inline(never)]\nfn {name}(n: usize) -> {} {{\n    match n % {ROWS} {{",
            ty.name
        );
        let mut told = Vec::new();
        for row in 0..ROWS {
            let (text, expected) = self.value(ty);
            let arm = if row + 1 == ROWS { "_".to_owned() } else { row.to_string() };
            let _ = writeln!(out, "        {arm} => {text},");
            told.push(expected);
        }
        out.push_str("    }\n}\n");
        told
    }

    fn all(&mut self, types: &[Rc<Type>]) -> (Vec<String>, Vec<Expected>) {
        types.iter().map(|ty| self.value(ty)).unzip()
    }

    fn value(&mut self, ty: &Type) -> (String, Expected) {
        match &ty.shape {
            Shape::Int { bits, signed } => {
                let number = self.dice.number(*bits, *signed);
                let text = match (*bits, *signed) {
                    (128, true) if number == i128::MIN => "i128::MIN".to_owned(),
                    _ => format!("{number}_{}", ty.name),
                };
                (text, Expected::Is(number.to_string()))
            }
            Shape::Bool => {
                let truth = self.dice.percent(50).to_string();
                (truth.clone(), Expected::Is(truth))
            }
            Shape::Char => {
                let c = *self.dice.one(&['a', 'Z', ' ', 'ä', '\'', '"', '\u{10ffff}', '語', '\0']);
                (format!("{c:?}"), Expected::Is(format!("{c:?}")))
            }
            Shape::Float => (format!("1.5_{}", ty.name), Expected::Unreadable),
            Shape::Unit => ("()".to_owned(), Expected::Is("()".to_owned())),
            Shape::Text => {
                let text = self.text();
                (format!("{text:?}"), Expected::Text(text))
            }
            Shape::Owned => {
                let text = self.text();
                (format!("String::from({text:?})"), Expected::Text(text))
            }
            Shape::Borrowed(to) => {
                let (text, told) = self.value(to);
                (format!("&*Box::leak(Box::new({text}))"), Expected::Referred(Box::new(told)))
            }
            Shape::Boxed(to) => {
                let (text, told) = self.value(to);
                (format!("Box::new({text})"), Expected::Referred(Box::new(told)))
            }
            Shape::Raw(to) => {
                if self.dice.percent(20) {
                    return ("std::ptr::null()".to_owned(), Expected::Is("null".to_owned()));
                }
                let (text, told) = self.value(to);
                (
                    format!("Box::into_raw(Box::new({text})).cast_const()"),
                    Expected::Behind(Box::new(told)),
                )
            }
            Shape::Option(of) => {
                if self.dice.percent(35) {
                    return ("None".to_owned(), Expected::Is("None".to_owned()));
                }
                let (text, told) = self.value(of);
                (format!("Some({text})"), Expected::Tuple("Some", vec![told]))
            }
            Shape::Result(of, error) => {
                let (name, of) = if self.dice.percent(60) { ("Ok", of) } else { ("Err", error) };
                let (text, told) = self.value(of);
                (format!("{name}({text})"), Expected::Tuple(name, vec![told]))
            }
            Shape::Tuple(of) => {
                let (texts, told) = self.all(of);
                (format!("({},)", texts.join(", ")), Expected::Tuple("", told))
            }
            Shape::Struct(fields) => {
                let mut text = String::new();
                let mut told = Vec::new();
                for (name, ty) in fields {
                    let (value, expected) = self.value(ty);
                    let _ = write!(text, "{name}: {value}, ");
                    told.push((name.clone(), expected));
                }
                (format!("{} {{ {text}}}", ty.name), Expected::Members(told))
            }
            Shape::Wrapped(of) => {
                let (texts, told) = self.all(of);
                (format!("{}({})", ty.name, texts.join(", ")), Expected::Tuple("", told))
            }
            Shape::Enum(variants) => {
                let variant = self.dice.below(variants.len());
                let variant = &variants[variant];
                let (texts, told) = self.all(&variant.fields);
                let path = format!("{}::{}", ty.name, variant.name);
                if told.is_empty() {
                    return (path, Expected::Is(variant.name.to_owned()));
                }
                if variant.named {
                    let fields: String = texts
                        .iter()
                        .enumerate()
                        .map(|(n, text)| format!("f{n}: {text}, "))
                        .collect();
                    let told = told
                        .into_iter()
                        .enumerate()
                        .map(|(n, told)| (format!("f{n}"), told))
                        .collect();
                    let told = Box::new(Expected::Members(told));
                    return (format!("{path} {{ {fields}}}"), Expected::Named(variant.name, told));
                }
                (format!("{path}({})", texts.join(", ")), Expected::Tuple(variant.name, told))
            }
            Shape::Array(of, count) => {
                let (texts, told) = self.list(of, *count);
                (format!("[{}]", texts.join(", ")), told)
            }
            Shape::Slice(of) => {
                let count = self.dice.below(4);
                let (texts, told) = self.list(of, count);
                (format!("&*Vec::leak(vec![{}])", texts.join(", ")), told)
            }
            Shape::Vector(of) => {
                let count = self.dice.below(4);
                let (texts, told) = self.list(of, count);
                (format!("vec![{}]", texts.join(", ")), told)
            }
        }
    }

    fn list(&mut self, of: &Type, count: usize) -> (Vec<String>, Expected) {
        let (texts, told): (Vec<_>, Vec<_>) = (0..count).map(|_| self.value(of)).unzip();
        (texts, Expected::List(told.into_iter().map(plain).collect()))
    }

    fn text(&mut self) -> String {
        let length = self.dice.below(12);
        (0..length).map(|_| *self.dice.one(&['a', 'b', 'c', 'x', 'ä', '"', ' '])).collect()
    }

    fn body(&mut self, number: usize, draft: &Draft, all: &[Draft], out: &mut String) -> String {
        let given: Vec<String> =
            draft.parameters.iter().map(|(name, ty, _)| format!("{name}: {}", ty.name)).collect();
        let result = draft.result.as_ref().map_or("()", |ty| &ty.name);
        let head = format!("{}fn g_{number}({}) -> {result}", draft.words, given.join(", "));
        let _ = writeln!(
            out,
            "#[inline(never)]\n{head} {{\n    entered({number});\n    let n = count({number});"
        );
        let late = self.dice.percent(50);
        let uses = |out: &mut String, early: bool| {
            for (name, _, used) in &draft.parameters {
                if *used && (early != late) {
                    let _ = writeln!(out, "    black_box(&{name});");
                }
            }
        };
        uses(out, true);
        for call in &draft.calls {
            let text = expression(*call, &all[*call]);
            let _ =
                writeln!(out, "    if may_call() {{ let n = next({call}); black_box({text}); }}");
        }
        uses(out, false);
        let _ = match draft.tail {
            Some(to) => {
                // What is dropped at the end is dropped behind the call.
                let call = expression(to, &all[to]);
                writeln!(out, "    let n = n * 0 + next({to}); leaves({number}); {call}\n}}")
            }
            None if draft.result.is_some() => {
                writeln!(out, "    let result = row_{number}_result(n); left({number}); result\n}}")
            }
            None => writeln!(out, "    let _ = n; left({number});\n}}"),
        };
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
        Expected::Behind(_) | Expected::Referred(_) => Expected::Address,
        other => other,
    }
}
