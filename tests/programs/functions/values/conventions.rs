//! Enums of many variants, and vectors.
use std::convert::Infallible;
use std::arch::x86_64::{__m128i, _mm_cvtsi128_si64, _mm_set_epi64x};

#[derive(Clone, Copy)]
#[allow(dead_code)]
enum Inner {
    No,
    Yes,
}

/// One variant is meant by every tag that means no other.
#[derive(Clone, Copy)]
#[allow(dead_code)]
enum Many {
    Filled(Inner),
    V0,
    V1,
    V2,
    V3,
    V4,
    V5,
    V6,
    V7,
    V8,
    V9,
    V10,
    V11,
    V12,
    V13,
    V14,
    V15,
    V16,
    V17,
    V18,
    V19,
    V20,
    V21,
    V22,
    V23,
    V24,
    V25,
    V26,
    V27,
    V28,
    V29,
    V30,
    V31,
    V32,
    V33,
    V34,
    V35,
    V36,
    V37,
    V38,
    V39,
    V40,
    V41,
    V42,
    V43,
    V44,
    V45,
    V46,
    V47,
    V48,
    V49,
    V50,
    V51,
    V52,
    V53,
    V54,
    V55,
    V56,
    V57,
    V58,
    V59,
    V60,
    V61,
    V62,
    V63,
    V64,
    V65,
    V66,
    V67,
    V68,
    V69,
    V70,
    V71,
    V72,
    V73,
    V74,
    V75,
    V76,
    V77,
    V78,
    V79,
    V80,
    V81,
    V82,
    V83,
    V84,
    V85,
    V86,
    V87,
    V88,
    V89,
    V90,
    V91,
    V92,
    V93,
    V94,
    V95,
    V96,
    V97,
    V98,
    V99,
    V100,
    V101,
    V102,
    V103,
    V104,
    V105,
    V106,
    V107,
    V108,
    V109,
    V110,
    V111,
    V112,
    V113,
    V114,
    V115,
    V116,
    V117,
    V118,
    V119,
    V120,
    V121,
    V122,
    V123,
    V124,
    V125,
    V126,
    V127,
    V128,
    V129,
    V130,
    V131,
    V132,
    V133,
    V134,
    V135,
    V136,
    V137,
    V138,
    V139,
}

#[inline(never)]
fn many(n: i32) -> Many {
    println!("conventions::many|remora.arg.n|{n}");
    match n % 4 {
        0 => Many::Filled(Inner::Yes),
        1 => Many::V3,
        2 => Many::V135,
        _ => Many::V139,
    }
}

#[inline(never)]
fn takes(value: Many, n: i32) -> i32 {
    println!("conventions::takes|remora.arg.value|{}", text(value));
    println!("conventions::takes|remora.arg.n|{n}");
    n * 3
}

/// One that nothing can be is meant by no tag.
#[derive(Clone, Copy)]
#[allow(dead_code)]
enum Gone {
    Never(Infallible),
    Filled(Inner),
    Empty,
    Other,
}

#[inline(never)]
fn gone(n: i32) -> Gone {
    println!("conventions::gone|remora.arg.n|{n}");
    match n % 4 {
        0 => Gone::Filled(Inner::Yes),
        3 => Gone::Filled(Inner::No),
        1 => Gone::Empty,
        _ => Gone::Other,
    }
}

#[inline(never)]
fn failed(n: i32) -> Result<Infallible, i32> {
    println!("conventions::failed|remora.arg.n|{n}");
    Err(n)
}

#[inline(never)]
fn vector(n: i32) -> __m128i {
    println!("conventions::vector|remora.arg.n|{n}");
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { _mm_set_epi64x(i64::from(n) + 1, i64::from(n)) }
}

fn text(value: Many) -> &'static str {
    match value {
        Many::Filled(Inner::Yes) => "Filled(Yes)",
        Many::Filled(Inner::No) => "Filled(No)",
        Many::V3 => "V3",
        Many::V135 => "V135",
        Many::V139 => "V139",
        _ => "another",
    }
}

fn main() {
    for n in 0..8 {
        let value = match gone(n) {
            Gone::Filled(Inner::Yes) => "Filled(Yes)",
            Gone::Filled(Inner::No) => "Filled(No)",
            Gone::Empty => "Empty",
            Gone::Other => "Other",
            _ => "another",
        };
        println!("conventions::gone|remora.return|{value}");
        let Err(error) = failed(n);
        println!("conventions::failed|remora.return|Err({error})");
        let value = many(n);
        println!("conventions::many|remora.return|{}", text(value));
        println!("conventions::takes|remora.return|{}", takes(value, n));
        // SAFETY: every x86-64 processor has SSE2.
        let first = unsafe { _mm_cvtsi128_si64(vector(n)) };
        println!("conventions::vector|remora.return|([{first}, {}])", first + 1);
    }
}
