//! Which processes the kernel half captures: the side of user space. Decides about none.

use std::io;

use agent_common::{MAYBE_SLOTS, Selected, changes, select};

use super::error::CaptureError;
use super::map::{Entry, Map};
use super::object::{Maps, ObjectError};
use crate::inspect::runtime::{Goroutines, Tasks};

/// Which processes the kernel half captures.
pub struct Selection {
    /// Which slots may be in `selected`.
    maybe: Map<u32, u8>,
    /// One word of it is changed whenever `selected` was.
    changes: Map<u32, u64>,
    changed: u64,
    selected: Map<u32, Selected>,
    ports: Map<u16, u32>,
}

impl Selection {
    /// Takes the maps of the selection.
    pub(super) fn new(maps: &mut Maps) -> Result<Self, ObjectError> {
        Ok(Self {
            maybe: maps.take_typed("MAYBE")?,
            changes: maps.take_typed("CHANGES")?,
            changed: 0,
            selected: maps.take_typed("SELECTED")?,
            ports: maps.take_typed("PORTS")?,
        })
    }

    /// How many processes the kernel half remembers, up to `most`. Reads the whole map.
    pub(super) fn count(&self, most: usize) -> usize {
        self.selected.count(most)
    }

    /// Captures `tgid` from here on; with `follow` its future children too.
    pub fn select(
        &mut self,
        tgid: u32,
        follow: bool,
        payload_limit: u32,
    ) -> Result<(), CaptureError> {
        let bits = select::TRACED | if follow { select::FOLLOW } else { 0 };
        self.put(tgid, Selected { bits, payload_limit, ..Selected::default() }, Entry::Any)
    }

    /// As [`select`](Self::select), for a process that the kernel half has told of and so has put
    /// into the map itself. If it has exited meanwhile, it stays forgotten: nobody would take it out
    /// again until its id comes round.
    pub fn confirm(
        &mut self,
        tgid: u32,
        follow: bool,
        payload_limit: u32,
    ) -> Result<(), CaptureError> {
        let known = self.bits(tgid).unwrap_or(0);
        let bits =
            select::TRACED | if follow { select::FOLLOW } else { 0 } | (known & select::FUNCTIONS);
        self.put(tgid, Selected { bits, payload_limit, ..Selected::default() }, Entry::Present)
    }

    /// Remembers that `tgid`, of which the kernel half has told, is not wanted, until it execs or
    /// exits.
    pub fn ignore(&mut self, tgid: u32) -> Result<(), CaptureError> {
        let selected = Selected { bits: select::IGNORED, ..Selected::default() };
        self.put(tgid, selected, Entry::Present)
    }

    /// Says what the kernel half finds in `tgid` beside threads, until it execs.
    pub fn tasks(&mut self, tgid: u32, tasks: Tasks) -> Result<(), CaptureError> {
        // Gone already: nothing to find.
        let Some(selected) = self.known(tgid) else { return Ok(()) };
        let selected = match tasks {
            Tasks::Goroutines(Goroutines { goid_offset, g_tls_offset, syscall }) => {
                let go_syscall = syscall.unwrap_or(0);
                Selected { goid_offset, g_tls_offset, go_syscall, ..selected }
            }
            Tasks::NginxRequests => Selected { bits: selected.bits | select::NGINX, ..selected },
        };
        self.put(tgid, selected, Entry::Present)
    }

    /// As [`select_functions`](Self::select_functions), of the program that `tgid` is about to become.
    pub fn select_next_functions(&mut self, tgid: u32) -> Result<(), CaptureError> {
        self.add(tgid, select::FUNCTIONS_NEXT)
    }

    /// Has the hits of function probes told of `tgid`, beside what else is told of it, until it execs
    /// or exits. Selecting it again in another way undoes this.
    pub fn select_functions(&mut self, tgid: u32) -> Result<(), CaptureError> {
        let known = self.known(tgid).unwrap_or_default();
        let bits = known.bits | select::FUNCTIONS;
        self.put(tgid, Selected { bits, ..known }, Entry::Any)
    }

    /// As [`select_functions`](Self::select_functions), for a process that is selected. If it has exited
    /// meanwhile, it stays forgotten.
    pub fn confirm_functions(&mut self, tgid: u32) -> Result<(), CaptureError> {
        self.add(tgid, select::FUNCTIONS)
    }

    fn add(&mut self, tgid: u32, bit: u32) -> Result<(), CaptureError> {
        let Some(known) = self.known(tgid) else { return Ok(()) };
        self.put(tgid, Selected { bits: known.bits | bit, ..known }, Entry::Present)
    }

    /// Forgets `tgid`.
    pub fn deselect(&mut self, tgid: u32) {
        // Gone already is as good: the kernel half removes exited processes itself.
        let _ = self.selected.remove(tgid);
        // It fails for nothing but an array without this word.
        let _ = self.changed();
    }

    /// Events of `tgid` that the kernel half lost; `None` if it is not selected.
    pub fn lost(&self, tgid: u32) -> Option<u64> {
        self.known(tgid).map(|selected| selected.lost)
    }

    /// Whether `tgid` is in the map, with these bits.
    pub fn bits(&self, tgid: u32) -> Option<u32> {
        self.known(tgid).map(|selected| selected.bits)
    }

    /// Selects whatever process begins to listen on `port`.
    pub fn watch_port(&mut self, port: u16) -> Result<(), CaptureError> {
        self.ports.set(port, 1, Entry::Any).map_err(unusable("PORTS"))
    }

    /// What the map says of `tgid`. Reading it fails for nothing but what is not there.
    fn known(&self, tgid: u32) -> Option<Selected> {
        self.selected.get(tgid).ok().flatten()
    }

    fn put(&mut self, tgid: u32, selected: Selected, entry: Entry) -> Result<(), CaptureError> {
        let slot = tgid & (MAYBE_SLOTS - 1);
        self.maybe.set(slot, 1, Entry::Any).map_err(unusable("MAYBE"))?;
        match self.selected.set(tgid, selected, entry) {
            Err(error) if entry == Entry::Present && error.raw_os_error() == Some(libc::ENOENT) => {
            }
            result => result.map_err(unusable("SELECTED"))?,
        }
        self.changed()
    }

    /// Has the kernel half look again at whom it has found selected, after that has changed.
    fn changed(&mut self) -> Result<(), CaptureError> {
        self.changed += 1;
        let result = self.changes.set(changes::USER, self.changed, Entry::Any);
        result.map_err(unusable("CHANGES"))
    }
}

fn unusable(map: &'static str) -> impl FnOnce(io::Error) -> CaptureError {
    move |source| CaptureError::Map { map, source }
}
