//! Panics, three times for each line that it is sent, and says before itself who has called: a line that begins `stack`, with the names of the
//! program's own functions from the innermost outward, and one that begins `places`, with their lines as far as
//! they are known.

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::io::BufRead;

// What says and what panics are on one line: `say` tells that of its own call.
#[inline(never)]
fn say() {
    let text = Backtrace::force_capture().to_string();
    let names = text.lines().filter_map(|line| line.trim().split_once(": ").map(|(_, name)| name));
    let own = names.filter(|name| name.starts_with("raise::") && *name != "raise::say");
    println!("stack {}", own.collect::<Vec<_>>().join(" "));
    let mut places = Vec::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let is_own = |name: &str| name.starts_with("raise::") && name != "raise::say";
        if line.split_once(": ").is_some_and(|(_, name)| is_own(name))
            && let Some(place) = lines.next_if(|line| line.starts_with("at "))
            // Without the column.
            && let Some((place, _)) = place.rsplit_once(':')
        {
            places.extend(place.rsplit('/').next());
        }
    }
    println!("places {}", places.join(" "));
}

struct List<T>(Vec<T>);

impl<T: Copy> List<T> {
    #[inline(never)]
    fn at(&self, index: usize) -> T {
        black_box({ say(); self }.0[index])
    }
}

#[inline(never)]
fn deep(count: u32) -> u32 {
    if count == 0 {
        say(); panic!("deep");
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
            let none: Option<u32> = black_box(None);
            black_box({ say(); none }.unwrap()) + number
        }),
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(called)).unwrap_or(kind)
}

fn main() {
    println!("ready");
    std::panic::set_hook(Box::new(|_| ()));
    for _ in std::io::stdin().lock().lines() {
        for kind in 0..3 {
            black_box(work(black_box(kind)));
        }
    }
}
