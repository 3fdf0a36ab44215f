//! What a parser of whole files reads of one: no more than so many bytes altogether.
//!
//! Headers claim any size, and a file with holes is as long as whoever made it likes at no cost; memory is
//! taken before anything is read.

use std::cell::Cell;
use std::ops::Range;

use object::{ReadCache, ReadCacheOps, ReadRef};

/// Bytes of a file, kept as long as this is, and how many more there may be.
#[derive(Debug)]
pub(super) struct Reads<R: ReadCacheOps> {
    cache: ReadCache<R>,
    left: Cell<u64>,
}

/// Whether so many bytes can be packed into so few: no more than zlib's best (RFC 1951: 258 bytes in two bits).
/// Other ways pack nothing that is of use better, but zeros as well as they like.
pub(super) fn can_be_packed(unpacked: u64, packed: u64) -> bool {
    unpacked <= packed.saturating_mul(1032)
}

/// About what it takes to keep a string beside its bytes.
const STRING_BYTES: u64 = 64;

impl<R: ReadCacheOps> Reads<R> {
    /// No more of a file than that.
    pub(super) fn up_to(bytes: u64, file: R) -> Self {
        Self { cache: ReadCache::new(file), left: Cell::new(bytes) }
    }

    fn take(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'data, R: ReadCacheOps> ReadRef<'data> for &'data Reads<R> {
    fn len(self) -> Result<u64, ()> {
        ReadRef::len(&self.cache)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        self.take(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.take(STRING_BYTES)?;
        let bytes = self.cache.read_bytes_at_until(range, delimiter)?;
        self.take(bytes.len() as u64)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_can_be_packed_as_zlib_can() {
        assert!(can_be_packed(1032, 1) && !can_be_packed(1033, 1));
        assert!(can_be_packed(0, 0) && !can_be_packed(1, 0));
        assert!(can_be_packed(u64::MAX, u64::MAX));
    }

    #[test]
    fn what_is_claimed_is_not_taken() {
        let file = tempfile();
        file.set_len(1 << 40).expect("holes take no room");
        let reads = Reads::up_to(1 << 20, file);
        let reads = &reads;
        assert_eq!(ReadRef::len(reads), Ok(1 << 40));
        assert_eq!(reads.read_bytes_at(0, 1 << 39), Err(()));
        assert_eq!(reads.read_bytes_at(1 << 39, 16), Ok(&[0; 16][..]));
        // However little each is.
        let (mut count, mut at) = (0, 0);
        while reads.read_bytes_at(at, 1 << 10).is_ok() {
            (count, at) = (count + 1, at + 1);
        }
        assert_eq!(count, 1023);
        let names = |at: u64| reads.read_bytes_at_until(at..at + 100, 0).is_ok();
        assert_eq!((0..100).take_while(|at| names(*at)).count(), 15);
    }

    fn tempfile() -> std::fs::File {
        let path = std::env::temp_dir().join(format!("remora-reads-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        std::fs::remove_file(&path).expect("it was made");
        file.expect("a file")
    }
}
