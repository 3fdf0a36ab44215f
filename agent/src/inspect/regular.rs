//! Opens what a stranger has named, if it is a regular file. To open anything else may take for ever (a pipe
//! waits for who writes to it) or do something (a watchdog begins to count down to a reset).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens it for reading; `None`: it is a pipe, a device, a directory.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    // What is opened by its path alone is not touched.
    let seen = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    if !seen.metadata()?.is_file() {
        return Ok(None);
    }
    // Whoever holds a lease on the file (fcntl(2)) is not waited for.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(format!("/proc/self/fd/{}", seen.as_raw_fd())).map(Some)
}

/// As [`open`]; an error for anything else.
pub(crate) fn must_open(path: &Path) -> io::Result<File> {
    open(path)?.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no regular file"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::scratch::Directory;

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = Directory::new("regular");
        let file = folder.file("file");
        std::fs::write(&file, "text").expect("the directory is ours");
        folder.run("mkfifo", &["pipe"]).expect("coreutils has it");
        std::os::unix::fs::symlink("pipe", folder.file("link")).expect("the directory is ours");
        for path in [&folder.file("pipe"), &folder.file("link"), folder.path()] {
            assert!(open(path).expect("it is there").is_none(), "{}", path.display());
            must_open(path).expect_err("it is no file");
        }
        assert!(open(Path::new("/dev/null")).expect("it is there").is_none());
        open(&folder.file("nothing")).expect_err("it is not there");
        // By what leads to it, though it has no name any more.
        let opened = must_open(&file).expect("it is a file");
        std::fs::remove_file(&file).expect("it was there");
        let again = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let mut text = String::new();
        must_open(Path::new(&again)).expect("a link").read_to_string(&mut text).expect("text");
        assert_eq!(text, "text");
    }
}
