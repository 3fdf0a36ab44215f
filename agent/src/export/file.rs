//! OTLP JSON lines into a file, or onto standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::otlp::json;
use super::queue::Batch;

/// A destination that takes lines.
pub(super) struct Lines {
    out: Box<dyn Write + Send>,
    /// The last write was cut in mid-line.
    torn: bool,
    line: Vec<u8>,
}

impl Lines {
    /// Opens a file for appending, creates it if it is not there. Span data may be sensitive: only
    /// the owner may read a new file.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self::new(Box::new(file)))
    }

    pub(super) fn stdout() -> Self {
        Self::new(Box::new(io::stdout()))
    }

    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, torn: false, line: Vec::new() }
    }

    /// Writes one line; nothing is kept back.
    pub(super) fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        self.line.clear();
        if self.torn {
            self.line.push(b'\n');
        }
        json::encode(batches.iter().flat_map(|batch| batch.iter()), &mut self.line);
        self.line.push(b'\n');
        let result = self.out.write_all(&self.line).and_then(|()| self.out.flush());
        self.torn = result.is_err();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes some bytes, then fails for a while.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("no panic while locked");
            let (content, room) = &mut *disk;
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            *room -= taken;
            content.extend(bytes.iter().take(taken));
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_cut_by_a_full_disk_does_not_spoil_the_next() {
        let disk = Disk::default();
        let mut lines = Lines::new(Box::new(disk.clone()));
        disk.0.lock().expect("lock").1 = 5;
        assert!(lines.write(&[]).is_err());
        disk.0.lock().expect("lock").1 = 1000;
        lines.write(&[]).expect("there is room");
        let content = String::from_utf8(disk.0.lock().expect("lock").0.clone()).expect("text");
        assert_eq!(content, "{\"res\n{\"resourceSpans\":[]}\n");
    }
}
