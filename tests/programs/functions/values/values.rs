//! Says what its functions are given and give back, in the words in which remora is to say it.

use std::hint::black_box;

macro_rules! arg {
    ($function:expr, $name:ident, $($format:tt)*) => {
        println!("{}|remora.arg.{}|{}", $function, stringify!($name), format!($($format)*))
    };
}
macro_rules! returns {
    ($function:expr, $($format:tt)*) => {
        println!("{}|remora.return|{}", $function, format!($($format)*))
    };
}

#[derive(Debug, Clone, Copy)]
pub enum Colour {
    Red,
    Green,
}
pub enum Shape {
    Empty,
    Circle(u32),
    Square { side: i64, name: &'static str },
}
pub struct Point {
    x: i32,
    y: i32,
}
#[derive(Clone)]
pub struct Order {
    id: u64,
    title: String,
    items: Vec<u16>,
}

#[no_mangle]
#[inline(never)]
pub fn integers(a: i8, b: u8, c: i16, d: u32, e: i64, f: u128, g: bool, h: char) -> i64 {
    arg!("integers", a, "{a}");
    arg!("integers", b, "{b}");
    arg!("integers", c, "{c}");
    arg!("integers", d, "{d}");
    arg!("integers", e, "{e}");
    arg!("integers", f, "{f}");
    arg!("integers", g, "{g}");
    arg!("integers", h, "{h:?}");
    e - 1
}

#[no_mangle]
#[inline(never)]
pub fn texts(text: &str, owned: String, borrowed: &String, list: &[u32], vec: Vec<i64>) -> String {
    arg!("texts", text, "{text}");
    arg!("texts", owned, "{owned}");
    arg!("texts", borrowed, "{borrowed}");
    arg!("texts", list, "{list:?}");
    arg!("texts", vec, "{vec:?}");
    format!("{text}{owned}")
}

#[no_mangle]
#[inline(never)]
pub fn options(a: Option<u32>, b: Option<&str>, c: Option<u64>, d: Option<Box<u64>>, e: Option<String>) -> Option<u32> {
    arg!("options", a, "{a:?}");
    arg!("options", b, "{b:?}");
    arg!("options", c, "{c:?}");
    arg!("options", d, "{d:?}");
    arg!("options", e, "{e:?}");
    a.map(|a| a + 5)
}

#[no_mangle]
#[inline(never)]
pub fn divide(a: u64, b: u64) -> Result<u64, String> {
    arg!("divide", a, "{a}");
    arg!("divide", b, "{b}");
    if b == 0 { Err(format!("{a} by nothing")) } else { Ok(a / b) }
}

#[no_mangle]
#[inline(never)]
pub fn small(a: u32) -> Result<u32, Colour> {
    arg!("small", a, "{a}");
    if a > 3 { Err(Colour::Green) } else { Ok(a) }
}

#[no_mangle]
#[inline(never)]
pub fn pairs(a: (u32, u32), p: Point, q: &Point) -> (u64, u32) {
    arg!("pairs", a, "{a:?}");
    arg!("pairs", p, "{{x: {}, y: {}}}", p.x, p.y);
    arg!("pairs", q, "{{x: {}, y: {}}}", q.x, q.y);
    (u64::from(a.0), a.1)
}

#[no_mangle]
#[inline(never)]
pub fn shapes(shape: Shape, colour: Colour, order: &Order) -> Shape {
    let text = match &shape {
        Shape::Empty => "Empty".to_owned(),
        Shape::Circle(radius) => format!("Circle({radius})"),
        Shape::Square { side, name } => format!("Square {{side: {side}, name: {name:?}}}"),
    };
    arg!("shapes", shape, "{text}");
    arg!("shapes", colour, "{colour:?}");
    arg!("shapes", order, "{{id: {}, title: {:?}, items: {:?}}}", order.id, order.title, order.items);
    match shape {
        Shape::Empty => Shape::Circle(1),
        Shape::Circle(radius) => Shape::Square { side: i64::from(radius), name: "grown" },
        Shape::Square { .. } => Shape::Empty,
    }
}

#[no_mangle]
#[inline(never)]
pub fn slices(text: &'static str, n: usize) -> &'static str {
    arg!("slices", text, "{text}");
    arg!("slices", n, "{n}");
    &text[n..]
}

#[no_mangle]
#[inline(never)]
pub fn bytes(n: u8) -> [u8; 8] {
    arg!("bytes", n, "{n}");
    [n, 2, 3, 4, 5, 6, 7, n]
}

#[no_mangle]
#[inline(never)]
pub fn three(n: u32) -> (u32, u32, u32) {
    arg!("three", n, "{n}");
    (n, n + 1, n + 2)
}

fn shape_text(shape: &Shape) -> String {
    match shape {
        Shape::Empty => "Empty".to_owned(),
        Shape::Circle(radius) => format!("Circle({radius})"),
        Shape::Square { side, name } => format!("Square {{side: {side}, name: {name:?}}}"),
    }
}

fn main() {
    for n in black_box([1_u32, 4]) {
        returns!("integers", "{}", integers(-5, 200, -30000, n, -9_000_000_000 - i64::from(n), u128::MAX - u128::from(n), n == 4, 'ä'));
        let owned = format!("owned {n}");
        returns!("texts", "{}", texts("a text", owned.clone(), &owned, &[n, 2, 3], vec![-1, i64::from(n)]));
        let some = n == 4;
        returns!("options", "{:?}", options(some.then_some(n), some.then_some("abc"), some.then_some(7), some.then(|| Box::new(9)), some.then(|| owned.clone())));
        let quotient = divide(u64::from(n), u64::from(n - 1));
        returns!("divide", "{quotient:?}");
        if let Err(error) = quotient {
            println!("divide|failed|Err: {error}");
        }
        let result = small(n);
        returns!("small", "{result:?}");
        if let Err(error) = result {
            println!("small|failed|Err: {error:?}");
        }
        returns!("pairs", "{:?}", pairs((n, 2), Point { x: -1, y: n as i32 }, &Point { x: 5, y: 6 }));
        let order = Order { id: u64::from(n), title: format!("title {n}"), items: vec![1, 2, n as u16] };
        let shape = if n == 1 { Shape::Circle(n) } else { Shape::Square { side: -7, name: "nice" } };
        let shape = shapes(shape, if n == 1 { Colour::Red } else { Colour::Green }, &order);
        returns!("shapes", "{}", shape_text(&shape));
        let shape = shapes(Shape::Empty, Colour::Red, &order);
        returns!("shapes", "{}", shape_text(&shape));
        returns!("slices", "{}", slices("some text", n as usize));
        returns!("bytes", "{:?}", bytes(n as u8));
        returns!("three", "{:?}", three(n));
    }
}
