//! Maps of the kernel's with the types of their keys and values, which are checked once, when a map is
//! taken out of its object. Knows no map by name.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::bpf::{self, Plain};

/// Which entries of a map may be written, as bpf(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// `BPF_ANY`
    Any = 0,
    /// `BPF_EXIST`: one that is there.
    Present = 2,
}

/// What the kernel was told of a map's size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) key_bytes: u32,
    pub(super) value_bytes: u32,
    pub(super) entries: u32,
}

impl Shape {
    /// Whether its keys and values are as large as these.
    fn fits<K, V>(self) -> bool {
        self.key_bytes as usize == size_of::<K>() && self.value_bytes as usize == size_of::<V>()
    }
}

/// A hash table or an array.
#[derive(Debug)]
pub(super) struct Map<K, V> {
    fd: OwnedFd,
    types: PhantomData<(K, V)>,
}

impl<K: Plain + Default, V: Plain + Default> Map<K, V> {
    /// `None` if it has other keys or values.
    pub(super) fn new(fd: OwnedFd, shape: Shape) -> Option<Self> {
        shape.fits::<K, V>().then_some(Self { fd, types: PhantomData })
    }

    /// The value of `key`; `None` if there is none.
    pub(super) fn get(&self, key: K) -> io::Result<Option<V>> {
        let mut value = [V::default()];
        match bpf::lookup(self.fd.as_fd(), &key, &mut value) {
            Ok(()) => Ok(Some(value[0])),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a value; `ENOENT` if it may not be new, but is.
    pub(super) fn set(&self, key: K, value: V, entry: Entry) -> io::Result<()> {
        bpf::update_if(self.fd.as_fd(), &key, &[value], entry as u64)
    }

    /// Takes a value out; `ENOENT` if there is none.
    pub(super) fn remove(&self, key: K) -> io::Result<()> {
        bpf::delete(self.fd.as_fd(), &key)
    }

    /// Counts the keys, up to `most`. They may change meanwhile, and the kernel begins anew at a key that
    /// is gone: hence the bound.
    pub(super) fn count(&self, most: usize) -> usize {
        let mut last: Option<K> = None;
        let mut count = 0;
        while count < most {
            match bpf::next_key(self.fd.as_fd(), last.as_ref()) {
                Ok(Some(key)) => last = Some(key),
                Ok(None) | Err(_) => break,
            }
            count += 1;
        }
        count
    }
}

/// An array with a value for each CPU.
#[derive(Debug)]
pub(super) struct PerCpuArray {
    fd: OwnedFd,
    cpus: usize,
    entries: u32,
}

impl PerCpuArray {
    /// Of words of eight bytes; `None` if it has others. `cpus` are all that the host may ever have.
    pub(super) fn new(fd: OwnedFd, shape: Shape, cpus: usize) -> Option<Self> {
        let entries = shape.entries;
        shape.fits::<u32, u64>().then_some(Self { fd, cpus, entries })
    }

    /// How many words each CPU has.
    pub(super) fn len(&self) -> u32 {
        self.entries
    }

    /// A word, summed over CPUs.
    pub(super) fn sum(&self, index: u32) -> io::Result<u64> {
        let mut words = vec![0u64; self.cpus];
        bpf::lookup(self.fd.as_fd(), &index, &mut words)?;
        Ok(words.iter().sum())
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
