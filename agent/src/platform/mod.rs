//! What this kernel and these privileges allow: types of the kernel, clocks, features.

pub mod btf;
pub mod clock;
pub mod cpus;
pub mod memory;
pub mod privileges;
