//! remora's kernel half for function probes: one program for every probed instruction. An object of
//! its own, so that an agent that was not asked for functions has nothing of it in the kernel.
//!
//! User space loads it with the maps of the other object that both name.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod budget;
mod chunks;
#[expect(dead_code, reason = "what only the other object writes")]
mod emit;
mod frames;
mod function;
mod image;
mod interpret;
mod lost;
mod offsets;
mod opaque;
mod registers;
#[expect(dead_code, reason = "what only the other object uses")]
mod selections;
mod storage;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;

/// Hook: `uprobe.multi` (6.6), or uprobe with a cookie (5.15). Runs for every process that runs a
/// probed instruction; one that was not selected costs one hash lookup. Reads registers and what the
/// site's code says, writes one `Hit` record.
#[uprobe]
pub fn function_hit(ctx: ProbeContext) -> u32 {
    function::on_hit(ctx.as_ptr());
    0
}

/// GPL for the helpers, Apache or MIT for the reader.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
