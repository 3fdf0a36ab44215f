//! What is compiled of types and places that are made up, over memory that is made up.

use std::collections::BTreeMap;

use super::super::interpret::{Machine, Outcome, run};
use super::super::usdt::{Number, compile_usdt};
use super::super::{Compare, CompileError, Condition, Options, Value, compile, compile_result};
use crate::inspect::dwarf::place::{Place, Step, Unreadable};
use crate::inspect::dwarf::types::{Member, Shape, Type, TypeNo, Types};
use crate::inspect::dwarf::{Described, Language, Parameter};

/// Registers by number, and bytes by address.
#[derive(Default)]
struct Made {
    registers: BTreeMap<u8, u64>,
    memory: BTreeMap<u64, u8>,
}

impl Made {
    fn with(registers: &[(u8, u64)], memory: &[(u64, &[u8])]) -> Self {
        let bytes = memory.iter().flat_map(|(at, bytes)| (*at..).zip(bytes.iter().copied()));
        Self { registers: registers.iter().copied().collect(), memory: bytes.collect() }
    }
}

impl Machine for Made {
    fn register(&self, number: u8) -> u64 {
        self.registers.get(&number).copied().unwrap_or(0)
    }

    fn stack_pointer(&self) -> u64 {
        self.register(7)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        (address..).zip(bytes).all(|(at, byte)| match self.memory.get(&at) {
            Some(found) => {
                *byte = *found;
                true
            }
            None => false,
        })
    }
}

const INT: TypeNo = TypeNo(0);
const POINTER: TypeNo = TypeNo(1);
const PAIR: TypeNo = TypeNo(2);
const TEXT: TypeNo = TypeNo(3);
const CHAR: TypeNo = TypeNo(4);
const FLOAT: TypeNo = TypeNo(5);
const LONG: TypeNo = TypeNo(6);

fn types() -> Types {
    let member = |name: &str, offset, ty| Member {
        name: name.into(),
        offset,
        ty,
        bits: None,
        embedded: false,
    };
    Types::new(vec![
        Type::new("int", 4, Shape::Int { signed: true }),
        Type::new("", 8, Shape::Pointer { to: PAIR, reference: false }),
        Type::new(
            "pair",
            16,
            Shape::Struct { members: vec![member("id", 0, INT), member("next", 8, POINTER)] },
        ),
        Type::new("", 8, Shape::Pointer { to: CHAR, reference: false }),
        Type::new("char", 1, Shape::Char { signed: true, plain: true }),
        Type::new("double", 8, Shape::Float),
        Type::new("long", 8, Shape::Int { signed: false }),
    ])
}

fn described(parameters: &[(&str, TypeNo, Result<Place, Unreadable>)]) -> Described {
    let parameter = |(name, ty, place): &(&str, TypeNo, Result<Place, Unreadable>)| Parameter {
        name: (*name).into(),
        ty: *ty,
        place: place.clone(),
    };
    Described {
        language: Language::C,
        name: "f".into(),
        file: None,
        line: None,
        parameters: parameters.iter().map(parameter).collect(),
        results: Vec::new(),
        types: types(),
        altered: false,
        go_types: None,
    }
}

fn told(described: &Described, options: &Options, machine: &Made) -> Option<Vec<String>> {
    let compiled = compile(described, options).expect("it compiles");
    assert!(compiled.ops.len() <= agent_common::function::OPS_MAX);
    match run(&compiled.ops, machine) {
        Outcome::Dropped => None,
        Outcome::Told(chunks) => {
            let values = compiled.reader.read(&chunks);
            let line = |(name, value): &(_, Value)| format!("{name}={value}");
            Some(values.iter().map(line).collect())
        }
    }
}

fn in_register(number: u8) -> Result<Place, Unreadable> {
    Ok(Place::register(number))
}

#[test]
fn what_cannot_be_read_is_not_told_as_a_number() {
    let function = described(&[
        ("a", INT, in_register(5)),
        ("b", FLOAT, in_register(5)),
        ("c", INT, Err(Unreadable::OptimizedOut)),
        ("d", INT, Ok(Place::Memory(vec![Step::Cfa, Step::Add(16)]))),
        ("e", POINTER, in_register(4)),
    ]);
    let machine = Made::with(&[(5, 0xffff_ffff_0000_0007), (7, 0x7000), (4, 0x9000)], &[]);
    let lines = told(&function, &Options::default(), &machine).expect("it is told");
    assert_eq!(
        lines,
        [
            "remora.arg.a=7",
            "remora.arg.b=<floats are not readable>",
            "remora.arg.c=<optimised out>",
            "remora.arg.d=<unreadable memory>",
            "remora.arg.e=0x9000",
        ]
    );
}

#[test]
fn pointers_are_followed_as_deep_as_asked() {
    let pair = |id: i32, next: u64| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bytes[8..].copy_from_slice(&next.to_le_bytes());
        bytes
    };
    let (first, second, third) = (pair(1, 0x6000), pair(2, 0x7000), pair(-3, 0));
    let machine =
        Made::with(&[(5, 0x5000)], &[(0x5000, &first), (0x6000, &second), (0x7000, &third)]);
    let function = described(&[("list", POINTER, in_register(5))]);
    for (depth, expected) in [
        (0, "0x5000"),
        (1, "&{id: 1, next: 0x6000}"),
        (2, "&{id: 1, next: &{id: 2, next: 0x7000}}"),
        (3, "&{id: 1, next: &{id: 2, next: &{id: -3, next: null}}}"),
        // There are no more slots than for three.
        (9, "&{id: 1, next: &{id: 2, next: &{id: -3, next: null}}}"),
    ] {
        let options = Options { depth, ..Options::default() };
        let lines = told(&function, &options, &machine).expect("it is told");
        assert_eq!(lines, [format!("remora.arg.list={expected}")], "depth {depth}");
    }
}

#[test]
fn members_are_selected_by_their_path() {
    let mut first = [0; 16];
    first[8..].copy_from_slice(&0x6000_u64.to_le_bytes());
    let mut second = [0; 16];
    second[0] = 42;
    let machine = Made::with(&[(5, 0x5000)], &[(0x5000, &first), (0x6000, &second)]);
    let function = described(&[("list", POINTER, in_register(5)), ("n", INT, in_register(4))]);
    let select = |paths: &[&str]| Options {
        select: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..Options::default()
    };
    let lines = told(&function, &select(&["list.next.id", "list.id", "n"]), &machine);
    let expected = ["remora.arg.list.next.id=42", "remora.arg.list.id=0", "remora.arg.n=0"];
    assert_eq!(lines.expect("it is told"), expected);
    for path in ["nothing", "list.nothing", "n.id"] {
        let error = compile(&function, &select(&[path])).expect_err("there is no such value");
        assert_eq!(error, CompileError::NoSuchValue { path: path.to_owned() });
    }
}

#[test]
fn conditions_drop_hits() {
    use Compare::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let function = described(&[("n", INT, in_register(5)), ("u", LONG, in_register(4))]);
    for (path, value, compare, number, holds) in [
        ("n", 5_u64, Greater, 4, true),
        ("n", 5, Greater, 5, false),
        ("n", 5, GreaterOrEqual, 5, true),
        // Only the value's own bytes count, and its sign.
        ("n", 0x1_ffff_ffff, Less, 0, true),
        ("n", 0xffff_ffff, Equal, -1, true),
        ("n", 7, NotEqual, 7, false),
        ("n", 7, LessOrEqual, 6, false),
        ("u", u64::MAX, Greater, 5, true),
        ("u", 5, Less, 6, true),
    ] {
        let condition = Condition { path: path.to_owned(), compare, number };
        let options = Options { conditions: vec![condition], ..Options::default() };
        let register = if path == "n" { 5 } else { 4 };
        let machine = Made::with(&[(register, value)], &[]);
        let is_told = told(&function, &options, &machine).is_some();
        assert_eq!(is_told, holds, "{path} = {value:#x} {compare:?} {number}");
    }
    let float = described(&[("x", FLOAT, in_register(5))]);
    let condition = Condition { path: "x".to_owned(), compare: Greater, number: 1 };
    let options = Options { conditions: vec![condition], ..Options::default() };
    let error = compile(&float, &options).expect_err("floats are not compared");
    let reason = Unreadable::Float;
    assert_eq!(error, CompileError::NotComparable { path: "x".to_owned(), reason });
}

#[test]
fn strings_are_text_only_if_they_are() {
    let function = described(&[("s", TEXT, in_register(5))]);
    let long = [b'x'; 200];
    for (address, bytes, expected) in [
        (0x5000, &b"plain\0"[..], "plain".to_owned()),
        (0x5000, b"\0", String::new()),
        (0x5000, b"\xff\xfe\0", "0x5000".to_owned()),
        (0x5000, b"a\x01b\0", "0x5000".to_owned()),
        (0x5000, b"unterminated", "0x5000".to_owned()),
        (0x5000, &long, format!("{}…", "x".repeat(128))),
        (0, b"", "null".to_owned()),
        (17, b"", "0x11".to_owned()),
    ] {
        let machine = Made::with(&[(5, address)], &[(0x5000, bytes)]);
        let lines = told(&function, &Options::default(), &machine).expect("it is told");
        assert_eq!(lines, [format!("remora.arg.s={expected}")]);
    }
}

#[test]
fn many_values_stay_within_one_hit() {
    let parameters: Vec<_> = (0..60).map(|_| ("p", POINTER, in_register(5))).collect();
    let mut pair = [0; 16];
    pair[8..].copy_from_slice(&0x5000_u64.to_le_bytes());
    let machine = Made::with(&[(5, 0x5000)], &[(0x5000, &pair)]);
    let options = Options { depth: 3, ..Options::default() };
    let lines = told(&described(&parameters), &options, &machine).expect("it is told");
    assert_eq!(lines.len(), 60);
    // The first is followed, later ones are told at least as addresses; none is left out in silence.
    assert!(lines[0].contains("id: 0"), "{}", lines[0]);
    assert!(lines[1..16].iter().all(|line| line.contains("id: 0") || line.contains("0x5000")));
    assert!(lines[16..].iter().all(|line| line.ends_with("<too long>")));
}

#[test]
fn static_tracepoints_have_numbers_and_strings() {
    let numbers = [
        Number::register(4, true, 5),
        Number::memory(2, false, 4, -8),
        Number::constant(8, true, -7),
        Number::register(8, false, 1),
        Number::register(8, false, 1),
    ];
    let machine = Made::with(
        &[(5, 0xffff_fffe), (4, 0x5008), (1, 0x6000)],
        &[(0x5000, &[1, 2]), (0x6000, b"text\0")],
    );
    let compiled = compile_usdt(&numbers, &[3], &Options::default());
    let Outcome::Told(chunks) = run(&compiled.ops, &machine) else { panic!("it is told") };
    let values: Vec<Value> = compiled.reader.read(&chunks).into_iter().map(|(_, v)| v).collect();
    assert_eq!(
        values,
        [
            Value::Int(-2),
            Value::Uint(0x201),
            Value::Int(-7),
            Value::Text("text".to_owned()),
            Value::Uint(0x6000),
        ]
    );
}

#[test]
fn a_negative_result_fails_only_if_asked() {
    let mut function = described(&[]);
    let place = in_register(0);
    function.results = vec![Parameter { name: "".into(), ty: INT, place }];
    for (value, asked, fails) in [(-1_i32, true, true), (-1, false, false), (3, true, false)] {
        let options = Options { negative_fails: asked, ..Options::default() };
        let compiled = compile_result(&function, &options);
        let machine = Made::with(&[(0, u64::from(value as u32))], &[]);
        let Outcome::Told(chunks) = run(&compiled.ops, &machine) else { panic!("it is told") };
        assert_eq!(compiled.reader.failure(&chunks).is_some(), fails, "{value}");
    }
}
