//! Functions that the optimiser may give other signatures, as nothing outside calls them.

use std::hint::black_box;

struct Point {
    x: i64,
    y: i64,
    z: i64,
}

#[inline(never)]
fn scaled(_unused: u64, factor: u32, value: u32, name: &str) -> u32 {
    println!("altered::scaled|remora.arg.factor|{factor}");
    println!("altered::scaled|remora.arg.value|{value}");
    println!("altered::scaled|remora.arg.name|{name}");
    black_box(value * factor)
}

#[inline(never)]
fn across(p: &Point, q: &Point) -> i64 {
    let sum = p.x + q.y;
    println!("altered::across|sum|{sum}");
    sum
}

#[inline(never)]
fn replaced(mut first: u64, second: u64, third: u64) -> u64 {
    first = black_box(second);
    black_box(&mut first);
    println!("altered::replaced|remora.arg.second|{second}");
    println!("altered::replaced|remora.arg.third|{third}");
    first + third
}

#[inline(never)]
fn large(n: i64) -> Point {
    println!("altered::large|remora.arg.n|{n}");
    Point { x: n, y: n * 2, z: -n }
}

#[inline(never)]
fn taken(p: Point, n: i64) -> i64 {
    println!("altered::taken|remora.arg.n|{n}");
    println!("altered::taken|remora.arg.p|{{x: {}, y: {}, z: {}}}", p.x, p.y, p.z);
    p.z - n
}

fn main() {
    for n in black_box([1_u32, 2, 3]) {
        scaled(u64::from(n), 3, n * 7, "name");
        scaled(u64::from(n) + 1, 3, n * 8, "another name");
        let p = large(i64::from(n));
        println!("altered::large|remora.return|{{x: {}, y: {}, z: {}}}", p.x, p.y, p.z);
        println!("altered::across|remora.return|{}", across(&p, &Point { x: 1, y: i64::from(n), z: 3 }));
        println!("altered::replaced|remora.return|{}", replaced(u64::from(n), u64::from(n) + 50, u64::from(n) + 100));
        println!("altered::taken|remora.return|{}", taken(p, i64::from(n)));
    }
}
