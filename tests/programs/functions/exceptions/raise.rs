//! Panics of several kinds within a probed function. Lines that begin `raised` say how often, and what is
//! to be told.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::panic::{self, AssertUnwindSafe};

#[inline(never)]
#[unsafe(no_mangle)]
fn work(kind: u32) -> u32 {
    let numbers = [1, 2, 3];
    match kind {
        0 => panic!("at {kind}"),
        1 => panic!("a constant"),
        2 => panic::panic_any(String::from("owned")),
        3 => panic::panic_any(42u32),
        4 => numbers[black_box(kind as usize)],
        5 => Err::<u32, String>("no good".to_owned()).unwrap(),
        _ => panic::resume_unwind(Box::new("an old one")),
    }
}

fn main() {
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let mut caught = 0;
    for _ in 0..3 {
        for kind in 0..7 {
            let result = panic::catch_unwind(AssertUnwindSafe(|| black_box(work(black_box(kind)))));
            caught += u32::from(result.is_err());
        }
    }
    println!("caught {caught}");
    println!("raised 3\tpanic\tat 0");
    println!("raised 3\tpanic\ta constant");
    println!("raised 3\tpanic\towned");
    println!("raised 3\tpanic\t");
    println!("raised 3\tpanic\tindex out of bounds: the len is 3 but the index is 4");
    println!("raised 3\tpanic\tcalled `Result::unwrap()` on an `Err` value: \"no good\"");
}
