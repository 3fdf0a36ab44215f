//! See `remora::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| remora_fuzz::run("exceptions", bytes));
