//! Panics, and says before itself who has called: a line that begins `stack`, with the names of the
//! program's own functions from the innermost outward.

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::io::BufRead;

#[inline(never)]
fn say() {
    let text = Backtrace::force_capture().to_string();
    let names = text.lines().filter_map(|line| line.trim().split_once(": ").map(|(_, name)| name));
    let own = names.filter(|name| name.starts_with("raise::") && *name != "raise::say");
    println!("stack {}", own.collect::<Vec<_>>().join(" "));
}

struct List<T>(Vec<T>);

impl<T: Copy> List<T> {
    #[inline(never)]
    fn at(&self, index: usize) -> T {
        say();
        black_box(self.0[index])
    }
}

#[inline(never)]
fn deep(count: u32) -> u32 {
    if count == 0 {
        say();
        panic!("deep");
    }
    black_box(deep(count - 1)) + 1
}

#[inline(never)]
fn call(kind: u32, with: &dyn Fn(u32) -> u32) -> u32 {
    black_box(with(kind)) + 1
}

#[inline(never)]
pub fn work(kind: u32) -> u32 {
    let list = List(vec![1, 2, 3]);
    let called = || match kind {
        0 => black_box(list.at(7)) + 1,
        1 => black_box(deep(5)) + 1,
        _ => call(kind, &|number| {
            say();
            let none: Option<u32> = black_box(None);
            black_box(none.unwrap()) + number
        }),
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(called)).unwrap_or(kind)
}

fn main() {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("a line");
    std::panic::set_hook(Box::new(|_| ()));
    for kind in 0..3 {
        black_box(work(black_box(kind)));
    }
}
