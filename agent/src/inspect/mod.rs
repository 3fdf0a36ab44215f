//! Facts from executables: bytes in, facts out. Attaches nothing and runs nothing.

pub mod address;
pub mod code;
pub mod debug_file;
pub mod demangle;
pub mod dwarf;
pub mod elf;
pub mod gopclntab;
pub(crate) mod needed;
pub mod nginx;
mod reads;
pub(crate) mod regular;
pub mod runtime;
pub mod symbols;
pub mod tls;
pub mod unwind;
pub mod usdt;
