//! Calls `price::shop::price` as often as a line says and answers with the CPU time, in nanoseconds.
use std::io::BufRead;
use std::process::exit;

#[derive(Debug, PartialEq)]
pub enum Refused {
    Nobody,
}

mod shop {
    use super::Refused;

    #[inline(never)]
    pub fn rate(customer: &str) -> u64 {
        std::hint::black_box(customer).len() as u64 & 3
    }

    #[inline(never)]
    pub fn price(customer: &str, count: u64) -> Result<u64, Refused> {
        if customer.is_empty() {
            return Err(Refused::Nobody);
        }
        Ok(count * 3 + rate(customer))
    }
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

/// CLOCK_THREAD_CPUTIME_ID
fn cpu_ns() -> i64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `now` is as the C library lays it out.
    unsafe { clock_gettime(3, &mut now) };
    now.seconds * 1_000_000_000 + now.nanoseconds
}

fn main() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let count: u64 = line.trim().parse().unwrap_or(0);
        let begun = cpu_ns();
        for n in 0..count {
            let customer = std::hint::black_box("Ada Lovelace");
            let priced = std::hint::black_box(shop::price(customer, n & 1023));
            if priced != Ok((n & 1023) * 3) {
                exit(1);
            }
        }
        println!("{}", cpu_ns() - begun);
    }
}
