//! Links: the probes of one program in one file, attached and detached together.
//!
//! One instruction that the kernel refuses fails a whole link, so a link that is refused is tried in
//! halves until what is refused stands alone. Closing a link can stall for as long as a grace period of
//! the kernel takes, so threads do it; dropping their handle waits for them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::PartNo;
use super::loader::Attach;
use super::uprobe::{self, Multi};

/// Most places of the links that are made one by one: each takes a tenth of a second to detach.
pub(super) const PERF_MAX: usize = 64;

/// Most refused places after which the rest is not looked for.
const REFUSED_MAX: usize = 1024;

/// Where probes go. All slices are equally long.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) path: &'a CStr,
    pub(super) tgid: Option<u32>,
    pub(super) offsets: &'a [u64],
    pub(super) cookies: &'a [u64],
    /// Empty if there are none.
    pub(super) semaphores: &'a [u64],
}

/// What was attached, and what was refused: index and reason.
#[derive(Debug, Default)]
pub(super) struct Linked {
    pub(super) links: Vec<OwnedFd>,
    pub(super) refused: Vec<(usize, io::Error)>,
}

/// Attaches `program` at all places that the kernel takes.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    attach: Attach,
    places: Places<'_>,
) -> io::Result<Linked> {
    let mut linked = Linked::default();
    match attach {
        Attach::Multi => halve(places.offsets.len(), &mut linked, &mut |from, to| {
            let part = |all| <[u64]>::get(all, from..to).unwrap_or_default();
            let multi = Multi {
                path: places.path,
                pid: places.tgid.unwrap_or(0),
                offsets: part(places.offsets),
                cookies: part(places.cookies),
                semaphores: part(places.semaphores),
            };
            uprobe::link_multi(program, &multi)
        })?,
        Attach::Perf => one_by_one(program, places, &mut linked)?,
    }
    Ok(linked)
}

/// Whether the kernel attaches a program at many places at once: one that does says that a directory
/// holds no code (`EBADF`), one that does not knows no such link.
pub(super) fn takes_multi(program: BorrowedFd<'_>) -> bool {
    let (offsets, cookies) = (&[0], &[0]);
    let directory = Multi { path: c"/", pid: 0, offsets, cookies, semaphores: &[] };
    let result = uprobe::link_multi(program, &directory);
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// Whether an error speaks of an instruction (or its semaphore), not of the file, the process or us.
fn is_about_a_place(error: &io::Error) -> bool {
    // The kernel's own, which user space has no name for: it can neither emulate nor step it.
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOEXEC | libc::EIO | libc::EFAULT)
    )
}

/// Makes links of as many as possible of the places `0..count` with `link(from, to)`.
fn halve(
    count: usize,
    linked: &mut Linked,
    link: &mut dyn FnMut(usize, usize) -> io::Result<OwnedFd>,
) -> io::Result<()> {
    // The part to try next is the last one.
    let mut parts = vec![(0, count)];
    while let Some((from, to)) = parts.pop() {
        if from == to {
            continue;
        }
        match link(from, to) {
            Ok(fd) => linked.links.push(fd),
            Err(error) if !is_about_a_place(&error) => return Err(error),
            Err(error) if to - from == 1 => {
                linked.refused.push((from, error));
                if linked.refused.len() > REFUSED_MAX {
                    return Err(io::Error::other(
                        "the kernel refuses too many of its instructions",
                    ));
                }
            }
            Err(_) => {
                let middle = from + (to - from) / 2;
                parts.push((middle, to));
                parts.push((from, middle));
            }
        }
    }
    Ok(())
}

fn one_by_one(program: BorrowedFd<'_>, places: Places<'_>, linked: &mut Linked) -> io::Result<()> {
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let kind = kind.trim().parse().map_err(io::Error::other)?;
    for (index, (offset, cookie)) in places.offsets.iter().zip(places.cookies).enumerate() {
        let semaphore = places.semaphores.get(index).copied().unwrap_or(0);
        let result = uprobe::open_uprobe(kind, places.path, *offset, semaphore, places.tgid)
            .and_then(|probe| Ok((uprobe::link_perf(program, probe.as_fd(), *cookie)?, probe)));
        match result {
            Ok((link, probe)) => linked.links.extend([link, probe]),
            Err(error) if is_about_a_place(&error) => linked.refused.push((index, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Links that are to be closed.
#[derive(Debug, Default)]
pub(super) struct Closing {
    pub(super) links: Vec<OwnedFd>,
    /// The part that they are the last of, if they are.
    pub(super) last_of: Option<PartNo>,
    /// What is closed when they are, and all others that have it.
    pub(super) behind: Option<Arc<OwnedFd>>,
}

/// How many links are closed at a time: each waits for a grace period of its own, and breakpoints are taken
/// away before that.
const CLOSERS: usize = 4;

/// The threads that close links. When one says that a part is closed, no hit of it is under way any more: the
/// kernel has waited for those that were.
#[derive(Debug)]
pub(super) struct Closer {
    links: Option<Sender<Closing>>,
    closed: Receiver<PartNo>,
    threads: Vec<JoinHandle<()>>,
}

impl Closer {
    /// Starts them.
    pub(super) fn start() -> io::Result<Self> {
        let (links, asked) = mpsc::channel::<Closing>();
        let asked = Arc::new(Mutex::new(asked));
        let (tell, closed) = mpsc::channel();
        let mut closer = Self { links: Some(links), closed, threads: Vec::new() };
        for _ in 0..CLOSERS {
            let (asked, tell) = (Arc::clone(&asked), tell.clone());
            let work = move || {
                while let Some(Closing { links, last_of, behind }) = next(&asked) {
                    drop(links);
                    drop(behind);
                    // Nobody may care any more.
                    let _ = last_of.map(|number| tell.send(number));
                }
            };
            let thread = std::thread::Builder::new().name("detach".to_owned());
            closer.threads.push(thread.spawn(work)?);
        }
        Ok(closer)
    }

    /// Closes links soon.
    pub(super) fn close(&self, closing: Closing) {
        if let Some(sender) = &self.links {
            // Threads that are gone hand them back, and they are closed here.
            drop(sender.send(closing));
        }
    }

    /// The next part that is closed, waited for.
    pub(super) fn wait(&self) -> Option<PartNo> {
        self.closed.recv().ok()
    }

    /// A part that has been closed meanwhile.
    pub(super) fn closed(&self) -> Option<PartNo> {
        self.closed.try_recv().ok()
    }
}

fn next(asked: &Mutex<Receiver<Closing>>) -> Option<Closing> {
    // Nothing panics while it is locked.
    asked.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.links = None;
        for thread in self.threads.drain(..) {
            // It does not panic; if it did, its links would be closed all the same.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("it is there").into()
    }

    /// Attaches `count` places of which `bad` are refused: what was attached and refused.
    fn check(count: usize, bad: &[usize]) -> (BTreeSet<usize>, Vec<usize>, usize) {
        let mut attached = BTreeSet::new();
        let mut linked = Linked::default();
        let mut tries = 0;
        halve(count, &mut linked, &mut |from, to| {
            tries += 1;
            if bad.iter().any(|place| (from..to).contains(place)) {
                return Err(io::Error::from_raw_os_error(524));
            }
            attached.extend(from..to);
            Ok(fd())
        })
        .expect("it goes on");
        (attached, linked.refused.into_iter().map(|(index, _)| index).collect(), tries)
    }

    #[test]
    fn what_is_refused_stands_alone() {
        for (count, bad) in [
            (0, vec![]),
            (1, vec![]),
            (1, vec![0]),
            (7, vec![0, 6]),
            (1000, vec![499]),
            (1000, vec![0, 1, 500, 999]),
            (5, vec![0, 1, 2, 3, 4]),
        ] {
            let (attached, refused, tries) = check(count, &bad);
            assert_eq!(refused, bad, "{count}");
            let good: BTreeSet<usize> = (0..count).filter(|place| !bad.contains(place)).collect();
            assert_eq!(attached, good, "{count} {bad:?}");
            assert!(tries <= 1 + bad.len() * 2 * 11, "{tries} for {count} {bad:?}");
        }
    }

    #[test]
    fn an_error_that_is_not_about_a_place_ends_it() {
        let mut linked = Linked::default();
        let mut tries = 0;
        let result = halve(100, &mut linked, &mut |_, _| {
            tries += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!(result.expect_err("no right").raw_os_error(), Some(libc::EPERM));
        assert_eq!(tries, 1);
    }

    #[test]
    fn a_file_of_refused_instructions_does_not_go_on_for_ever() {
        let mut linked = Linked::default();
        let mut tries = 0;
        let result = halve(1 << 20, &mut linked, &mut |_, _| {
            tries += 1;
            Err(io::Error::from_raw_os_error(524))
        });
        assert!(result.is_err());
        assert!(tries < 3 * REFUSED_MAX, "{tries}");
    }

    #[test]
    fn the_closer_has_closed_when_it_is_gone() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let closer = Closer::start().expect("a thread");
        closer.close(Closing { links: vec![writer.into()], ..Closing::default() });
        drop(closer);
        let mut rest = Vec::new();
        // At its end only if every writer is closed.
        io::Read::read_to_end(&mut reader, &mut rest).expect("it ends");
        assert!(rest.is_empty());
    }
}
