//! A ring buffer of the kernel's (`BPF_MAP_TYPE_RINGBUF`), read by one reader. Hands out bytes and knows
//! nothing of what they say.
//!
//! The kernel offers the data pages twice in a row, so that a record never wraps. They are mapped once
//! here, since each mapping of a page counts as the agent's memory; a record that wraps, one in a whole
//! round of the ring, is put together in a buffer instead.
#![expect(unsafe_code, reason = "reads memory that it shares with the kernel")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// `BPF_RINGBUF_BUSY_BIT`: the record is still being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: its writer has thrown it away.
const DISCARDED: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`
const HEADER_BYTES: usize = 8;

/// The reader's end.
pub struct Ring {
    fd: OwnedFd,
    /// Holds the reader's position, which the kernel reads.
    consumer: Mapping,
    /// A page with the writers' position, then the data.
    producer: Mapping,
    page_bytes: usize,
    data_bytes: usize,
    /// Up to where records were handed out.
    position: usize,
    /// Up to where the kernel knows of it and may write again.
    published: usize,
    /// Up to where records were begun, when last looked.
    begun: usize,
    /// The last record that wrapped.
    joined: Vec<u8>,
}

impl Ring {
    /// Maps a ring whose data have this size, a power of two.
    pub(super) fn new(fd: OwnedFd, data_bytes: u32) -> io::Result<Self> {
        let data_bytes = data_bytes as usize;
        // SAFETY: takes no pointer.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let write = libc::PROT_READ | libc::PROT_WRITE;
        let consumer = Mapping::new(fd.as_fd(), page_bytes, write, 0)?;
        let producer =
            Mapping::new(fd.as_fd(), page_bytes + data_bytes, libc::PROT_READ, page_bytes)?;
        // Whoever had read before has left this here.
        let position = consumer.position().load(Ordering::Acquire);
        Ok(Self {
            fd,
            consumer,
            producer,
            page_bytes,
            data_bytes,
            position,
            published: position,
            begun: position,
            joined: Vec::new(),
        })
    }

    /// Hands every record that is ready to `sink`, at most `most`; returns how many.
    pub fn drain(&mut self, most: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < most {
            let Some(record) = self.next() else { break };
            sink(record);
            count += 1;
        }
        self.publish();
        count
    }

    /// The next record, if one is ready. Writers get the room of those before when there is no next one,
    /// or so many that it matters: a write to what they all read costs them.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        if self.position.wrapping_sub(self.published) > self.data_bytes / 16 {
            self.publish();
        }
        let (from, bytes) = loop {
            if self.position == self.begun {
                // Pairs with the kernel's release of the position: what lies below is initialised.
                self.begun = self.producer.position().load(Ordering::Acquire);
                if self.position == self.begun {
                    self.publish();
                    return None;
                }
            }
            let from = self.position & (self.data_bytes - 1);
            let header = self.header(from);
            if header & BUSY != 0 {
                self.publish();
                return None;
            }
            let bytes = (header & !DISCARDED) as usize;
            let whole = (HEADER_BYTES + bytes).next_multiple_of(8);
            self.position = self.position.wrapping_add(whole);
            if header & DISCARDED == 0 {
                break (from + HEADER_BYTES, bytes);
            }
        };
        Some(self.data(from, bytes))
    }

    /// Tells the kernel that what was handed out may be written over.
    fn publish(&mut self) {
        if self.published != self.position {
            // Our reads are done before a writer sees this: it reads the position with acquire.
            self.consumer.position().store(self.position, Ordering::Release);
            self.published = self.position;
        }
    }

    /// The first word of the record that begins at `at`, a multiple of eight within the data.
    fn header(&self, at: usize) -> u32 {
        // SAFETY: within the mapping, since headers are aligned to eight and the ring is larger.
        let word = unsafe { self.producer.start.add(self.page_bytes + at) }.cast::<AtomicU32>();
        // SAFETY: aligned, alive as long as the mapping; the kernel writes it atomically.
        let word = unsafe { word.as_ref() };
        // Pairs with the exchange that ends the writing of a record: its bytes are there.
        word.load(Ordering::Acquire)
    }

    /// `bytes` of data from `from` on, a place that may lie a header behind the end.
    fn data(&mut self, from: usize, bytes: usize) -> &[u8] {
        let from = from & (self.data_bytes - 1);
        // The kernel takes no record that is larger than the ring.
        let bytes = bytes.min(self.data_bytes);
        let first = bytes.min(self.data_bytes - from);
        if first == bytes {
            return self.piece(from, bytes);
        }
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        joined.extend_from_slice(self.piece(from, first));
        joined.extend_from_slice(self.piece(0, bytes - first));
        self.joined = joined;
        &self.joined
    }

    /// `bytes` of data at `from`, of a record that was handed out and is not published.
    fn piece(&self, from: usize, bytes: usize) -> &[u8] {
        // SAFETY: `from + bytes` is at most the size of the data, by `data`.
        let start = unsafe { self.producer.start.add(self.page_bytes + from) };
        // SAFETY: initialised, since the record's header said so, and not written again before the
        // record is published, which needs `self` mutably.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A part of a map in our memory.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(
        fd: BorrowedFd<'_>,
        bytes: usize,
        protection: libc::c_int,
        offset: usize,
    ) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, bytes })
    }

    /// The position at its beginning.
    fn position(&self) -> &AtomicUsize {
        // SAFETY: both mappings begin with a page whose first word is a position that the kernel reads
        // and writes as one; pages are aligned.
        unsafe { self.start.cast::<AtomicUsize>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: the mapping belongs to its owner alone, wherever that goes; the kernel's side is atomic.
unsafe impl Send for Mapping {}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const DATA: u32 = 1 << 16;

    /// A ring whose kernel is this test: its pages lie in a file.
    struct Fake {
        file: File,
        page: u64,
        begun: u64,
    }

    impl Fake {
        fn new() -> (Self, Ring) {
            let path = std::env::temp_dir().join(format!("remora-ring-{}", fastrand::u64(..)));
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            let file = file.expect("a file");
            std::fs::remove_file(&path).expect("it is there");
            // SAFETY: takes no pointer.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
            file.set_len(2 * page + u64::from(DATA)).expect("room");
            let fd = file.try_clone().expect("a descriptor");
            let ring = Ring::new(fd.into(), DATA).expect("it is mapped");
            (Self { file, page, begun: 0 }, ring)
        }

        fn put(&self, at: u64, bytes: &[u8]) {
            for (at, byte) in (at..).zip(bytes) {
                let at = 2 * self.page + at % u64::from(DATA);
                self.file.write_all_at(&[*byte], at).expect("it is written");
            }
        }

        /// Begins a record; where it lies.
        fn begin(&mut self, bytes: &[u8]) -> u64 {
            let at = self.begun;
            self.put(at, &(bytes.len() as u32 | BUSY).to_ne_bytes());
            self.put(at + HEADER_BYTES as u64, bytes);
            self.begun += (HEADER_BYTES + bytes.len()).next_multiple_of(8) as u64;
            self.file.write_all_at(&self.begun.to_ne_bytes(), self.page).expect("it is written");
            at
        }

        fn end(&self, at: u64, bytes: usize, flags: u32) {
            self.put(at, &(bytes as u32 | flags).to_ne_bytes());
        }

        fn write(&mut self, bytes: &[u8]) {
            let at = self.begin(bytes);
            self.end(at, bytes.len(), 0);
        }

        /// Up to where the reader lets the kernel write.
        fn read_to(&self) -> u64 {
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, 0).expect("it is read");
            u64::from_ne_bytes(word)
        }
    }

    fn drain(ring: &mut Ring, most: usize) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        ring.drain(most, |record| records.push(record.to_vec()));
        records
    }

    #[test]
    fn records_come_whole_and_in_order_over_many_rounds() {
        let (mut kernel, mut ring) = Fake::new();
        for round in 0..400u32 {
            let record = |index: u32| -> Vec<u8> {
                let bytes = (round * 7 + index * 613) % 1500;
                (0..bytes).map(|byte| (byte + round + index) as u8).collect()
            };
            let written: Vec<_> = (0..5).map(record).collect();
            for record in &written {
                kernel.write(record);
            }
            assert_eq!(drain(&mut ring, 3), written[..3], "round {round}");
            assert_eq!(drain(&mut ring, 100), written[3..], "round {round}");
            assert_eq!(kernel.read_to(), kernel.begun, "round {round}");
        }
        assert!(kernel.begun > 20 * u64::from(DATA), "it went round often");
        assert!(!ring.joined.is_empty(), "some record has wrapped");
    }

    #[test]
    fn what_is_being_written_is_waited_for_and_what_was_thrown_away_is_skipped() {
        let (mut kernel, mut ring) = Fake::new();
        kernel.write(b"first");
        let busy = kernel.begin(b"second");
        kernel.write(b"third");
        assert_eq!(drain(&mut ring, 10), [b"first"]);
        assert_eq!(kernel.read_to(), busy);
        assert!(drain(&mut ring, 10).is_empty());
        kernel.end(busy, 6, DISCARDED);
        assert_eq!(drain(&mut ring, 10), [b"third"]);
        assert_eq!(kernel.read_to(), kernel.begun);
    }

    #[test]
    fn room_is_given_back_before_the_ring_is_full() {
        let (mut kernel, mut ring) = Fake::new();
        let mut seen = Vec::new();
        for _ in 0..DATA / 4096 {
            kernel.write(&[1; 4088]);
        }
        ring.drain(100, |_| seen.push(kernel.read_to()));
        assert_eq!(seen.len(), 16);
        assert!(seen[15] >= u64::from(DATA) / 2, "{seen:?}");
    }
}
