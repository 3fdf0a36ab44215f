//! Results for which C's convention and Rust's own differ. Debug information does not say which it is.
use std::hint::black_box;

#[inline(never)]
extern "C" fn packed(n: u32) -> Option<u32> {
    if n > 2 { Some(n) } else { None }
}

#[inline(never)]
extern "C" fn nested(n: i8) -> Option<(i8, char)> {
    Some((n, black_box('ä')))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn twelve(n: u32) -> [u32; 3] {
    [n, n + 1, n + 2]
}

#[inline(never)]
fn own(n: u32) -> Option<u32> {
    if n > 2 { Some(n) } else { None }
}

fn main() {
    for n in black_box([1_u32, 4]) {
        println!("corners::packed|remora.return|{:?}", packed(n));
        println!("corners::nested|remora.return|{:?}", nested(n as i8));
        println!("twelve|remora.return|{:?}", twelve(n));
        println!("corners::own|remora.return|{:?}", own(n));
    }
}
