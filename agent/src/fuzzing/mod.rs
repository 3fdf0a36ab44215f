//! What is fed with hostile input, for fuzzers and for the test that replays their corpus. Each
//! target takes any bytes; it panics only if a promise of the code behind it is broken.

mod answers;
mod elf;
mod event;
mod exceptions;
mod file;
mod headers;
mod honest;
mod http1;
mod input;
mod processes;
mod program;
mod recording;
mod sections;
mod stacks;
mod values;
pub mod wire;
mod witness;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use honest::check as check_honest;
pub use witness::Witness;

/// What a target does with bytes.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("answers", answers::run),
    ("elf", elf::run),
    ("event", event::run),
    ("exceptions", exceptions::run),
    ("headers", headers::run),
    ("http1", http1::run),
    ("processes", processes::run),
    ("recording", recording::run),
    ("sections", sections::run),
    ("stacks", stacks::run),
    ("values", values::run),
];

/// Runs a target.
///
/// # Panics
/// If there is no target of that name, or if a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, run) = target.unwrap_or_else(|| panic!("no target `{name}`"));
    run(bytes);
}
