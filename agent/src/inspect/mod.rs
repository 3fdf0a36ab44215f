//! Facts from executables: bytes in, facts out. Attaches nothing and runs nothing.

pub mod address;
pub mod dwarf;
pub mod runtime;
pub mod tls;
