//! Facts from executables: bytes in, facts out. Attaches nothing and runs nothing.

pub mod runtime;
pub mod tls;
