//! Places in executables.

/// A virtual address as the linker gave it, before any load bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtAddr(pub u64);

/// An offset in a file; what the kernel takes for a uprobe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileOffset(pub u64);
