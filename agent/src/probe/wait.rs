//! Waiting for the kernel half: until it wakes the reader, or until there is a record.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

/// What ends a wait early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The kernel half wakes the reader. Records that do not wake wait.
    Woken,
    /// There is a record.
    Record,
}

/// Readable from when the kernel half wakes the reader until it is cleared. poll(2) on the ring itself
/// tells of any record, so a rest would end as soon as it begins while there is traffic.
pub(super) struct Alarm {
    epoll: OwnedFd,
}

impl Alarm {
    pub(super) fn new(ring: impl AsFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: looked at again only when its wait queue is woken (fs/eventpoll.c).
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, ring, epoll::EventData::new_u64(0), flags)?;
        Ok(Self { epoll })
    }

    /// Forgets wake-ups so far.
    pub(super) fn clear(&self) -> io::Result<()> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        match epoll::wait(&self.epoll, &mut events[..], Some(&Timespec::default())) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until `ring` has what `until` says, one of `others` becomes readable or `timeout` is over.
    /// True if one of `others` is readable.
    pub(super) fn wait<const N: usize>(
        &self,
        ring: BorrowedFd<'_>,
        until: Until,
        others: [Option<BorrowedFd<'_>>; N],
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let first = match until {
            Until::Woken => self.epoll.as_fd(),
            Until::Record => ring,
        };
        let others = others.into_iter().flatten();
        let entry = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut entries: Vec<_> = std::iter::once(first).chain(others).map(entry).collect();
        let timeout = timeout.map(|rest| Timespec {
            tv_sec: rest.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: rest.subsec_nanos().into(),
        });
        match poll(&mut entries, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(entries.iter().skip(1).any(|entry| !entry.revents().is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An eventfd stands for the ring: each write to it wakes, whether it was readable or not.
    #[test]
    fn an_alarm_tells_of_wake_ups_and_not_of_what_waits() {
        let ring =
            rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("a counter");
        let alarm = Alarm::new(&ring).expect("an alarm");
        let readable = |until| {
            let fds = match until {
                Until::Woken => alarm.epoll.as_fd(),
                Until::Record => ring.as_fd(),
            };
            let mut entries = [PollFd::from_borrowed_fd(fds, PollFlags::IN)];
            poll(&mut entries, Some(&Timespec::default())).expect("a poll") == 1
        };
        assert!(!readable(Until::Woken));
        let wake = || rustix::io::write(&ring, &1u64.to_ne_bytes()).expect("a write");
        wake();
        assert!(readable(Until::Woken) && readable(Until::Record));
        alarm.clear().expect("it is cleared");
        assert!(!readable(Until::Woken) && readable(Until::Record));
        wake();
        assert!(readable(Until::Woken));
        // Nothing is readable any more, so there is nothing to wake for.
        rustix::io::read(&ring, &mut [0; 8]).expect("a read");
        assert!(!readable(Until::Woken) && !readable(Until::Record));
        let other =
            rustix::event::eventfd(1, rustix::event::EventfdFlags::NONBLOCK).expect("another");
        let woken = alarm.wait(ring.as_fd(), Until::Woken, [None, Some(other.as_fd())], None);
        assert!(woken.expect("a wait"));
    }
}
