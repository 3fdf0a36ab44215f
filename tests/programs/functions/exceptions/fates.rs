//! Panics that are caught, by whom ever, and some that end their thread. Lines that begin `fate` say how
//! many there are with a message, and what becomes of them.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::panic::{self, AssertUnwindSafe};
use std::thread;

#[inline(never)]
#[unsafe(no_mangle)]
fn work(what: &'static str) -> u32 {
    if black_box(what) == "inside" {
        return panic::catch_unwind(|| inner(what)).is_err().into();
    }
    inner(what)
}

#[inline(never)]
fn inner(what: &'static str) -> u32 {
    panic::panic_any(what)
}

/// Panics while another panic is on its way.
struct Cleaner;

impl Drop for Cleaner {
    fn drop(&mut self) {
        let caught = panic::catch_unwind(|| work("while cleaning"));
        assert!(caught.is_err());
    }
}

fn attempt(what: &'static str) -> u32 {
    panic::catch_unwind(AssertUnwindSafe(|| black_box(work(what)))).is_err().into()
}

fn main() {
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let mut caught = 0;
    for _ in 0..3 {
        caught += work("inside");
        caught += attempt("outside");
        caught += u32::from(thread::spawn(|| work("of a thread")).join().is_err());
        let cleaned = panic::catch_unwind(|| {
            let _cleaner = Cleaner;
            work("cleaned up")
        });
        caught += u32::from(cleaned.is_err());
    }
    println!("caught {caught}");
    println!("fate 3\tinside\tcaught");
    println!("fate 3\toutside\tcaught");
    // The thread's own catching is part of its closure: whether that is the user's cannot be told.
    println!("fate 3\tof a thread\t-");
    println!("fate 3\tcleaned up\tcaught");
    println!("fate 3\twhile cleaning\tcaught");
    println!("fate 1\tof main\tnot caught");
    work("of main");
}
