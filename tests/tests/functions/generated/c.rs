//! Programs in C and C++: functions of any signature, with tables of what they are given.

use std::fmt::Write as _;
use std::rc::Rc;

use super::c_types::{
    Member, Shape, Type, bare, character, index, integer, is_small, members_text, plain, use_of,
};
use super::dice::Dice;
use super::expected::Expected;
use super::planned::{Function, Outcome, Planned, ROWS};

/// What all of them begin with.
const HEAD: &str = include_str!("../../../programs/functions/made/log.h");

/// Deepest nesting of structs.
const NESTED_MAX: u32 = 2;

/// Which language is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    C,
    Cpp,
}

/// Makes up a program.
pub(crate) fn program(seed: u64, dialect: Dialect) -> Planned {
    let mut maker = Maker {
        dice: Dice::new(seed),
        cpp: dialect == Dialect::Cpp,
        types: Vec::new(),
        declared: String::new(),
        globals: String::new(),
        next: 0,
    };
    maker.program()
}

struct Maker {
    dice: Dice,
    cpp: bool,
    types: Vec<Rc<Type>>,
    declared: String,
    globals: String,
    next: usize,
}

/// A function while the program is put together.
struct Draft {
    is_static: bool,
    variadic: bool,
    parameters: Vec<Parameter>,
    result: Option<Rc<Type>>,
    returns: Returns,
    /// Which it calls.
    calls: Vec<usize>,
}

struct Parameter {
    name: String,
    ty: Rc<Type>,
    rows: Vec<(String, Expected)>,
    /// Every call has the same, written where it is called.
    constant: Option<String>,
    used: Used,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Used {
    Never,
    Early,
    Late,
    ByAddress,
    Overwritten,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Returns {
    Nothing,
    Row,
    Parameter(usize),
    /// Jumps to another, if the compiler will.
    Tail(usize),
}

impl Maker {
    fn name(&mut self, of: &str) -> String {
        self.next += 1;
        format!("{of}{}", self.next)
    }

    fn program(&mut self) -> Planned {
        for _ in 0..12 {
            let ty = self.ty(0);
            self.types.push(ty);
        }
        let count = 24;
        let mut drafts: Vec<Draft> = Vec::new();
        for number in 0..count {
            let draft = self.draft(number, count);
            drafts.push(draft);
        }
        // Who jumps to another gives back what that does.
        for number in (0..count).rev() {
            if let Returns::Tail(to) = drafts[number].returns {
                drafts[number].result = drafts[to].result.clone();
            }
        }
        let mut tables = String::new();
        let mut heads = String::new();
        let mut bodies = String::new();
        let mut functions = Vec::new();
        for (number, draft) in drafts.iter().enumerate() {
            let head = head(number, draft);
            let _ = writeln!(heads, "{head};");
            let result = self.table(number, draft, &mut tables);
            self.body(number, draft, &drafts, &mut bodies);
            let parameters = draft.parameters.iter().map(|parameter| {
                let rows = parameter.rows.iter().map(|(_, expected)| expected.clone()).collect();
                (parameter.name.clone(), rows)
            });
            functions.push(Function { parameters: parameters.collect(), result, head });
        }
        let mut calls = String::new();
        for (number, draft) in drafts.iter().enumerate() {
            for _ in 0..2 {
                let call = self.call(number, draft);
                let _ = writeln!(calls, "\tleft = 40; depth = 0; {call}");
            }
        }
        let threads = if self.dice.percent(30) { 3 } else { 1 };
        let source = format!(
            "{HEAD}\n{}\n{}\n{tables}\n{heads}\n{bodies}\nvoid calls(void)\n{{\n{calls}}}\n\n\
             int main(int argc, char **argv) {{ return runs({threads}, argv[argc - 1]); }}\n",
            self.declared, self.globals
        );
        Planned { source, functions, stacks_are_close: false }
    }

    fn draft(&mut self, number: usize, count: usize) -> Draft {
        let given = match self.dice.below(10) {
            0 => 0,
            1..=6 => 1 + self.dice.below(5),
            _ => 4 + self.dice.below(8),
        };
        let is_static = self.dice.percent(60);
        let mut parameters = Vec::new();
        for number in 0..given {
            let ty = self.parameter_type();
            let constant = is_static && self.dice.percent(15) && is_small(&ty);
            let rows: Vec<(String, Expected)> = if constant {
                let row = self.value(&ty);
                vec![row; ROWS]
            } else {
                (0..ROWS).map(|_| self.value(&ty)).collect()
            };
            let used = match self.dice.below(10) {
                0 => Used::Never,
                1..=3 => Used::Late,
                4 => Used::ByAddress,
                5 if is_small(&ty) => Used::Overwritten,
                _ => Used::Early,
            };
            let constant = constant.then(|| rows[0].0.clone());
            parameters.push(Parameter { name: format!("p{number}"), ty, rows, constant, used });
        }
        let later = count - number - 1;
        let calls = self.dice.calls(number, count, 65);
        let result = if self.dice.percent(12) { None } else { Some(self.result_type()) };
        let own: Vec<usize> = match &result {
            Some(result) => (0..given)
                .filter(|n| {
                    parameters[*n].ty.name == result.name
                        && parameters[*n].used != Used::Overwritten
                })
                .collect(),
            None => Vec::new(),
        };
        let returns = match &result {
            None if later > 0 && self.dice.percent(50) => {
                Returns::Tail(number + 1 + self.dice.below(later))
            }
            _ if later > 0 && self.dice.percent(12) => {
                Returns::Tail(number + 1 + self.dice.below(later))
            }
            None => Returns::Nothing,
            Some(_) if !own.is_empty() && self.dice.percent(60) => {
                Returns::Parameter(*self.dice.one(&own))
            }
            Some(_) => Returns::Row,
        };
        let variadic = given > 0
            && !is_static
            && self.dice.percent(10)
            && !matches!(parameters[given - 1].ty.shape, Shape::Reference(_));
        Draft { is_static, variadic, parameters, result, returns, calls }
    }

    fn parameter_type(&mut self) -> Rc<Type> {
        let ty = self.any_type();
        if self.cpp && self.dice.percent(15) {
            let name = if self.dice.percent(70) {
                format!("{} const&", ty.name)
            } else {
                format!("{}&&", ty.name)
            };
            return Rc::new(Type { name, shape: Shape::Reference(ty) });
        }
        ty
    }

    fn result_type(&mut self) -> Rc<Type> {
        self.any_type()
    }

    fn any_type(&mut self) -> Rc<Type> {
        if self.dice.percent(45) { self.dice.one(&self.types).clone() } else { self.scalar() }
    }

    fn scalar(&mut self) -> Rc<Type> {
        let (name, shape) = match self.dice.below(20) {
            0 => ("signed char", Shape::Int { bits: 8, signed: true }),
            1 => ("unsigned char", Shape::Int { bits: 8, signed: false }),
            2 => ("short", Shape::Int { bits: 16, signed: true }),
            3 => ("unsigned short", Shape::Int { bits: 16, signed: false }),
            4 | 5 => ("int", Shape::Int { bits: 32, signed: true }),
            6 => ("unsigned", Shape::Int { bits: 32, signed: false }),
            7 | 8 => ("long", Shape::Int { bits: 64, signed: true }),
            9 => ("unsigned long long", Shape::Int { bits: 64, signed: false }),
            10 => ("__int128", Shape::Int { bits: 128, signed: true }),
            11 => ("unsigned __int128", Shape::Int { bits: 128, signed: false }),
            12 => ("char", Shape::Char),
            13 => ("truth", Shape::Bool),
            14 => ("float", Shape::Float("1.5f")),
            15 => ("double", Shape::Float("-2.25")),
            16 if self.dice.percent(50) => ("long double", Shape::Float("3.125L")),
            16 if self.cpp => ("double", Shape::Float("7.5")),
            16 => ("_Complex float", Shape::Float("2.5f")),
            17 => ("const char *", Shape::CString),
            18 if self.dice.percent(50) => ("code", Shape::Code),
            18 => ("void *", Shape::Address),
            _ => ("long", Shape::Int { bits: 64, signed: true }),
        };
        Rc::new(Type { name: name.to_owned(), shape })
    }

    /// A type of the program's own.
    fn ty(&mut self, depth: u32) -> Rc<Type> {
        if self.cpp && self.dice.percent(25) {
            return self.of_library();
        }
        match self.dice.below(12) {
            0 => self.enumeration(),
            1 => {
                let to = self.member_type(depth);
                let name = self.name("ptr");
                let _ = writeln!(self.declared, "typedef {} *{name};", to.name);
                let is_followed = !matches!(
                    to.shape,
                    Shape::Float(_) | Shape::Code | Shape::Int { bits: 8, .. } | Shape::Address
                );
                let shape = match to.shape {
                    Shape::Char => Shape::CString,
                    _ if is_followed => Shape::Pointer(to),
                    _ => Shape::Address,
                };
                Rc::new(Type { name, shape })
            }
            2 => self.vector(),
            3 => {
                let name = self.name("either");
                // What has a destructor cannot be in one.
                let depth = if self.cpp { NESTED_MAX } else { depth };
                let members = self.members(depth, false);
                let text = members_text(&members);
                let _ = writeln!(self.declared, "typedef union {{ {text}}} {name};");
                Rc::new(Type { name, shape: Shape::Union(members) })
            }
            4 => {
                let of = self.scalar();
                let name = self.name("alias");
                let _ = writeln!(self.declared, "typedef {} {name};", of.name);
                let shape = match of.shape {
                    Shape::Int { bits, signed } => Shape::Int { bits, signed },
                    Shape::Char => Shape::Char,
                    Shape::Bool => Shape::Bool,
                    Shape::Float(text) => Shape::Float(text),
                    Shape::CString => Shape::CString,
                    Shape::Code => Shape::Code,
                    _ => Shape::Address,
                };
                Rc::new(Type { name, shape })
            }
            _ => self.structure(depth),
        }
    }

    fn of_library(&mut self) -> Rc<Type> {
        let (name, shape) = match self.dice.below(4) {
            0 | 1 => ("std::string".to_owned(), Shape::StdString),
            2 => ("std::string_view".to_owned(), Shape::View),
            _ => {
                let of = loop {
                    let of = self.scalar();
                    if !matches!(of.shape, Shape::Bool | Shape::Float(_) | Shape::Code) {
                        break of;
                    }
                };
                (format!("std::vector<{}>", of.name), Shape::Elements(of))
            }
        };
        Rc::new(Type { name, shape })
    }

    fn enumeration(&mut self) -> Rc<Type> {
        let name = self.name("kind");
        let signed = self.dice.percent(50);
        let bits = if self.cpp { *self.dice.one(&[8, 16, 32, 64]) } else { 32 };
        let mut names = Vec::new();
        let mut text = String::new();
        for number in 0..1 + self.dice.below(4) {
            let value = match number {
                0 if signed => -1,
                _ => self.dice.number(bits, signed).max(i128::from(i64::MIN) + 1),
            };
            if names.iter().all(|(_, known)| *known != value) {
                let constant = format!("{name}_{number}");
                let _ = write!(text, "{constant} = {}, ", integer(value, bits, signed));
                names.push((constant, value));
            }
        }
        let under = match (self.cpp, signed) {
            (false, _) => String::new(),
            (true, true) => format!(" : {}", ["signed char", "short", "int", "long"][index(bits)]),
            (true, false) => {
                let under = ["unsigned char", "unsigned short", "unsigned", "unsigned long"];
                format!(" : {}", under[index(bits)])
            }
        };
        let keyword = if self.cpp && self.dice.percent(50) { "enum class" } else { "enum" };
        let _ = if self.cpp {
            writeln!(self.declared, "{keyword} {name}{under} {{ {text}}};")
        } else {
            writeln!(self.declared, "typedef enum {{ {text}}} {name};")
        };
        // C takes whichever type has room for all of them.
        let signed = if self.cpp { signed } else { names.iter().any(|(_, value)| *value < 0) };
        let bits = match names.iter().map(|(_, value)| *value).max() {
            Some(most) if !self.cpp && signed && most > i128::from(i32::MAX) => 64,
            _ => bits,
        };
        Rc::new(Type { name, shape: Shape::Enum { names, bits, signed } })
    }

    fn vector(&mut self) -> Rc<Type> {
        let (of, bits) = *self.dice.one(&[("int", 32), ("long", 64), ("short", 16)]);
        let bytes = *self.dice.one(&[8, 16]);
        let name = self.name("vec");
        let _ =
            writeln!(self.declared, "typedef {of} {name} __attribute__((vector_size({bytes})));");
        let of = Type { name: of.to_owned(), shape: Shape::Int { bits, signed: true } };
        Rc::new(Type { name, shape: Shape::Vector(Rc::new(of), bytes * 8 / bits as usize) })
    }

    fn structure(&mut self, depth: u32) -> Rc<Type> {
        let packed = self.dice.percent(20);
        let members = self.members(depth, true);
        let name = self.name("type");
        let text = members_text(&members);
        let attribute = if packed { "__attribute__((packed)) " } else { "" };
        let extra = if self.cpp && self.dice.percent(25) {
            *self.dice.one(&[
                "static int none; ",
                "int method() const { return 1; } ",
                // Passed by its address.
                "~NAME() { } ",
                "constexpr static long some = 7; ",
            ])
        } else {
            ""
        };
        let extra = extra.replace("NAME", &name);
        let _ = writeln!(self.declared, "struct {attribute}{name} {{ {text}{extra}}};");
        if !self.cpp {
            let _ = writeln!(self.declared, "typedef struct {name} {name};");
        }
        Rc::new(Type { name, shape: Shape::Struct(members) })
    }

    fn members(&mut self, depth: u32, bits: bool) -> Vec<Member> {
        let count = 1 + self.dice.below(5);
        let mut members = Vec::new();
        for _ in 0..count {
            let name = self.name("m");
            if bits && self.dice.percent(15) {
                for _ in 0..1 + self.dice.below(3) {
                    let name = self.name("m");
                    members.push(self.bit_field(name));
                }
                continue;
            }
            let ty = self.member_type(depth);
            let array = !matches!(ty.shape, Shape::StdString | Shape::View | Shape::Elements(_))
                && self.dice.percent(15);
            let count = array.then(|| 1 + self.dice.below(4));
            members.push(Member { name, ty, bits: None, count });
        }
        members
    }

    fn bit_field(&mut self, name: String) -> Member {
        let ty = loop {
            let ty = if self.dice.percent(15) { self.enumeration() } else { self.scalar() };
            match &ty.shape {
                Shape::Int { bits: 8..=64, .. } | Shape::Char | Shape::Bool => break ty,
                Shape::Enum { .. } => break ty,
                _ => {}
            }
        };
        let most = match &ty.shape {
            Shape::Int { bits, .. } => *bits,
            // One of eight bits is no field to Clang, and told as a letter.
            Shape::Char => 7,
            Shape::Enum { bits, .. } => *bits,
            _ => 1,
        };
        // An enum that does not fit would be cut.
        let bits = match &ty.shape {
            Shape::Enum { bits, .. } => *bits,
            _ => 1 + self.dice.below(most as usize) as u32,
        };
        Member { name, ty, bits: Some(bits), count: None }
    }

    fn member_type(&mut self, depth: u32) -> Rc<Type> {
        if self.dice.percent(4) {
            let of = loop {
                let of = self.scalar();
                if !matches!(of.shape, Shape::Char) {
                    break of;
                }
            };
            let (name, count) = (self.name("row"), 1 + self.dice.below(3));
            let _ = writeln!(self.declared, "typedef {} {name}[{count}];", of.name);
            return Rc::new(Type { name, shape: Shape::Row(of, count) });
        }
        if depth < NESTED_MAX && self.dice.percent(20) {
            let ty = self.ty(depth + 1);
            // What a union begins with must be plain.
            if !matches!(ty.shape, Shape::StdString | Shape::View | Shape::Elements(_)) {
                return ty;
            }
        }
        self.scalar()
    }

    /// A value: how it is written, and how it is to be told.
    fn value(&mut self, ty: &Type) -> (String, Expected) {
        match &ty.shape {
            Shape::Int { bits, signed } => {
                let number = self.dice.number(*bits, *signed);
                (integer(number, *bits, *signed), Expected::Is(number.to_string()))
            }
            Shape::Char => {
                let number = self.dice.number(8, true);
                (format!("(char){number}"), Expected::Is(character(number)))
            }
            Shape::Bool => {
                let truth = self.dice.percent(50);
                (u8::from(truth).to_string(), Expected::Is(truth.to_string()))
            }
            Shape::Enum { names, bits, signed } => {
                if self.dice.percent(80) {
                    let (name, value) = self.dice.one(names).clone();
                    let text = format!("({}){}", ty.name, integer(value, *bits, *signed));
                    return (text, Expected::Is(name));
                }
                let number = self.dice.number(*bits, *signed);
                let text = format!("({}){}", ty.name, integer(number, *bits, *signed));
                let name = names.iter().find(|(_, value)| *value == number);
                let told = name.map_or_else(|| number.to_string(), |(name, _)| name.clone());
                (text, Expected::Is(told))
            }
            Shape::Float(text) => ((*text).to_owned(), Expected::Unreadable),
            Shape::Address => match self.dice.below(3) {
                0 => ("0".to_owned(), Expected::Is("null".to_owned())),
                _ => {
                    let address = 0x10_0000_0000 + (self.dice.bits() & 0xffff_ffff);
                    (format!("({}){address:#x}", ty.name), Expected::Is(format!("{address:#x}")))
                }
            },
            Shape::Code => match self.dice.below(2) {
                0 => ("0".to_owned(), Expected::Is("null".to_owned())),
                _ => ("&calls".to_owned(), Expected::Address),
            },
            Shape::CString => {
                if self.dice.percent(15) {
                    return ("0".to_owned(), Expected::Is("null".to_owned()));
                }
                let text = self.text();
                // Pointers to what can be changed need an array that can be.
                let name = self.name("text");
                let _ = writeln!(self.globals, "static char {name}[] = {text:?};");
                (name, Expected::Text(text))
            }
            Shape::Pointer(to) => {
                if self.dice.percent(15) {
                    return ("0".to_owned(), Expected::Is("null".to_owned()));
                }
                let (text, told) = self.value(to);
                let name = self.name("there");
                let _ = writeln!(self.globals, "static {} {name} = {text};", to.name);
                (format!("&{name}"), Expected::Behind(Box::new(told)))
            }
            Shape::Struct(members) => {
                let mut texts = Vec::new();
                let mut told = Vec::new();
                for member in members {
                    let (text, expected) = self.member(member);
                    texts.push(text);
                    told.push((member.name.clone(), expected));
                }
                (format!("{{ {} }}", texts.join(", ")), Expected::Members(told))
            }
            Shape::Union(members) => {
                let (text, _) = self.member(&members[0]);
                (format!("{{ {text} }}"), Expected::Unreadable)
            }
            Shape::Vector(of, count) | Shape::Row(of, count) => {
                let values: Vec<_> = (0..*count).map(|_| self.value(of)).collect();
                let texts: Vec<_> = values.iter().map(|(text, _)| text.as_str()).collect();
                let text = format!("{{ {} }}", texts.join(", "));
                (text, Expected::List(values.into_iter().map(|(_, told)| plain(told)).collect()))
            }
            Shape::StdString => {
                let mut text = self.text();
                if self.dice.percent(40) {
                    text.push_str(" which is longer than what is kept inside");
                }
                (format!("{text:?}"), Expected::Text(text))
            }
            Shape::View => {
                let text = self.text();
                (format!("{text:?}"), Expected::Text(text))
            }
            Shape::Elements(of) => {
                let values: Vec<_> = (0..self.dice.below(4)).map(|_| self.value(of)).collect();
                let texts: Vec<_> = values.iter().map(|(text, _)| text.as_str()).collect();
                // A list of one string would be two addresses.
                let text = format!("{}({{ {} }})", ty.name, texts.join(", "));
                (text, Expected::List(values.into_iter().map(|(_, told)| plain(told)).collect()))
            }
            Shape::Reference(to) => {
                let (text, told) = self.value(to);
                (text, Expected::Referred(Box::new(told)))
            }
        }
    }

    fn member(&mut self, member: &Member) -> (String, Expected) {
        if let Some(bits) = member.bits {
            return match &member.ty.shape {
                Shape::Int { bits: wide, signed } => {
                    let number = self.dice.number(bits, *signed);
                    (integer(number, *wide, *signed), Expected::Is(number.to_string()))
                }
                Shape::Char => {
                    let number = self.dice.number(bits, true);
                    (number.to_string(), Expected::Is(number.to_string()))
                }
                _ => self.value(&member.ty),
            };
        }
        match member.count {
            None => self.value(&member.ty),
            Some(count) if matches!(member.ty.shape, Shape::Char) => {
                // Characters in place are a text that ends with a zero, or with the array.
                let letters: String =
                    (0..count).map(|_| char::from(b'a' + self.dice.below(26) as u8)).collect();
                let used = self.dice.below(count + 1);
                let quoted: Vec<String> = letters
                    .chars()
                    .enumerate()
                    .map(|(n, c)| if n < used { format!("'{c}'") } else { "0".to_owned() })
                    .collect();
                let told = Expected::Is(format!("{:?}", &letters[..used]));
                (format!("{{ {} }}", quoted.join(", ")), told)
            }
            Some(count) => {
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(&member.ty));
                }
                let texts: Vec<_> = values.iter().map(|(text, _)| text.as_str()).collect();
                let text = format!("{{ {} }}", texts.join(", "));
                (text, Expected::List(values.into_iter().map(|(_, told)| plain(told)).collect()))
            }
        }
    }

    fn text(&mut self) -> String {
        let length = self.dice.below(12);
        (0..length).map(|_| char::from(b'a' + self.dice.below(26) as u8)).collect()
    }

    /// The table of a function's arguments and results.
    fn table(&mut self, number: usize, draft: &Draft, out: &mut String) -> Outcome {
        let mut rows = vec![String::new(); ROWS];
        let mut members = String::new();
        for parameter in &draft.parameters {
            let (name, ty) = (&parameter.name, bare(&parameter.ty));
            let _ = write!(members, "{} {name}; ", ty.name);
            for (row, (text, _)) in rows.iter_mut().zip(&parameter.rows) {
                let _ = write!(row, "{text}, ");
            }
        }
        let mut result = match draft.returns {
            Returns::Nothing | Returns::Row => Outcome::Nothing,
            Returns::Parameter(number) => Outcome::Parameter(number),
            Returns::Tail(_) => Outcome::Callee,
        };
        if let (Returns::Row, Some(ty)) = (draft.returns, &draft.result) {
            let _ = write!(members, "{} result; ", ty.name);
            let mut told = Vec::new();
            for row in &mut rows {
                let (text, expected) = self.value(ty);
                row.push_str(&text);
                told.push(expected);
            }
            result = Outcome::Rows(told);
        }
        let _ =
            writeln!(out, "struct table_{number} {{ {members}int last; }} T_{number}[{ROWS}] = {{");
        for row in rows {
            let row = row.trim_end_matches(", ");
            let _ = writeln!(out, "\t{{ {row} }},");
        }
        out.push_str("};\n");
        let _ = writeln!(out, "PER_THREAD unsigned next_{number};");
        result
    }

    fn body(&mut self, number: usize, draft: &Draft, all: &[Draft], out: &mut String) {
        let _ = writeln!(out, "{}\n{{\n\tENTERED({number});", head(number, draft));
        let _ = writeln!(out, "\tunsigned n = next_{number}++ % {ROWS}; (void)n;");
        let uses = |out: &mut String, when: Used| {
            for parameter in draft.parameters.iter().filter(|p| p.used == when) {
                let name = &parameter.name;
                let _ = match when {
                    Used::ByAddress => writeln!(out, "\tTOUCH(&{name});"),
                    Used::Overwritten => {
                        let ty = &bare(&parameter.ty).name;
                        writeln!(out, "\t{name} = ({ty})0; TOUCH(&{name});")
                    }
                    _ => writeln!(out, "\t{}({name});", use_of(&parameter.ty)),
                };
            }
        };
        if self.dice.percent(50) {
            uses(out, Used::Overwritten);
        }
        uses(out, Used::Early);
        for call in &draft.calls {
            let text = self.call(*call, &all[*call]);
            let _ = writeln!(out, "\tif (MAY_CALL()) {{ {text} }}");
        }
        uses(out, Used::Late);
        uses(out, Used::ByAddress);
        uses(out, Used::Overwritten);
        let _ = match draft.returns {
            Returns::Nothing => writeln!(out, "\tLEFT({number});"),
            Returns::Row => {
                writeln!(out, "\tLEFT({number});\n\treturn T_{number}[n].result;")
            }
            Returns::Parameter(given) => {
                writeln!(out, "\tLEFT({number});\n\treturn p{given};")
            }
            Returns::Tail(to) => {
                let call = self.expression(to, &all[to]);
                let give = if draft.result.is_some() { "return " } else { "" };
                writeln!(out, "\tn = next_{to} % {ROWS}; LEAVES({number}); {give}{call};")
            }
        };
        out.push_str("}\n\n");
    }

    /// A call as a statement.
    fn call(&mut self, number: usize, draft: &Draft) -> String {
        let call = self.expression(number, draft);
        let call = match &draft.result {
            Some(result) if self.dice.percent(75) => {
                format!("{} got = {call}; {}(got);", result.name, use_of(result))
            }
            _ => format!("{call};"),
        };
        format!("{{ unsigned n = next_{number} % {ROWS}; (void)n; {call} }}")
    }

    fn expression(&mut self, number: usize, draft: &Draft) -> String {
        let mut given = Vec::new();
        for parameter in &draft.parameters {
            given.push(match (&parameter.constant, &parameter.ty.shape) {
                (Some(text), _) => text.clone(),
                (None, Shape::Reference(to)) if parameter.ty.name.ends_with("&&") => {
                    format!("static_cast<{}&&>(T_{number}[n].{})", to.name, parameter.name)
                }
                _ => format!("T_{number}[n].{}", parameter.name),
            });
        }
        if draft.variadic {
            for _ in 0..self.dice.below(4) {
                given.push((*self.dice.one(&["1", "2.5", "3L", "\"more\""])).to_owned());
            }
        }
        format!("g_{number}({})", given.join(", "))
    }
}

/// A function's head.
fn head(number: usize, draft: &Draft) -> String {
    let mut given: Vec<String> = draft
        .parameters
        .iter()
        .map(|parameter| format!("{} {}", parameter.ty.name, parameter.name))
        .collect();
    if draft.variadic {
        given.push("...".to_owned());
    }
    let given = if given.is_empty() { "void".to_owned() } else { given.join(", ") };
    let linkage = if draft.is_static { "static " } else { "" };
    let result = draft.result.as_ref().map_or("void", |result| &result.name);
    format!("KEEP {linkage}{result} g_{number}({given})")
}
