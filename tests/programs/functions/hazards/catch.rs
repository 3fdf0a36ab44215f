//! Panics that unwind through probed frames and are caught, in several threads.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};

static DROPS: AtomicU64 = AtomicU64::new(0);
static INNER: AtomicU64 = AtomicU64::new(0);
static OUTER: AtomicU64 = AtomicU64::new(0);

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
fn may_panic(n: u64) -> u64 {
    INNER.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted;
    if n % 3 == 0 {
        panic!("at {n}");
    }
    black_box(n * 2)
}

#[inline(never)]
#[unsafe(no_mangle)]
fn passes_on(n: u64) -> u64 {
    OUTER.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted;
    black_box(may_panic(n)) + 1
}

fn main() {
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    panic::set_hook(Box::new(|_| ()));
    let work = |thread: u64| {
        let (mut sum, mut caught, mut text) = (0, 0, 0);
        for n in 0..1000 {
            match panic::catch_unwind(|| passes_on(n + thread)) {
                Ok(value) => sum += value,
                Err(payload) => {
                    caught += 1;
                    text += payload.downcast_ref::<String>().map_or(0, String::len);
                }
            }
        }
        (sum, caught, text)
    };
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || work(n))).collect();
    for thread in threads {
        println!("{:?}", thread.join().unwrap());
    }
    println!("drops {}", DROPS.load(Ordering::Relaxed));
    println!("calls may_panic {}", INNER.load(Ordering::Relaxed));
    println!("calls passes_on {}", OUTER.load(Ordering::Relaxed));
}
