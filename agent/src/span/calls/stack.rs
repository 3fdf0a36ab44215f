//! The open calls of one task: which one an entry lies within, and which ones a hit shows to be over.
//!
//! A stack grows downwards, so a call's slot for its return address lies below that of its caller. An
//! entry at `S` proves that every call with a slot below `S` is over, a return at `S` that those below
//! are. A task may switch stacks (signal handlers, coroutines): each region that it is seen to use is a
//! [`Lane`] of its own, and a hit says nothing about the lanes it is not in.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::raises::{Home, Raises};
use super::{Frame, Function, Jump};
use crate::event::ids::StackPointer;
use crate::function::exception::Place;
use crate::platform::clock::MonoNs;

/// How far below the innermost open call another one on the same stack is taken to be at most: a large
/// frame on the stack lies between.
const BELOW: u64 = 1 << 20;

/// How far above the outermost open call. Its callers are over then, or were never seen.
const ABOVE: u64 = 1 << 16;

/// The same, for tasks that have been seen to have stacks close to each other: pools of them are.
const BELOW_IF_CLOSE: u64 = 1 << 14;

/// The same.
const ABOVE_IF_CLOSE: u64 = 1 << 12;

/// Most calls that are remembered as left without a return.
const LEFT_MAX: usize = 64;

/// Most stacks of one task that are remembered.
const LANES_MAX: usize = 64;

/// Why a return was not seen: an exception, a `longjmp` or the like has left the call.
pub(super) const UNWOUND: &str = "unwound";

/// Why a return was not seen of a task that switches between stacks which lie close to each other: it may still
/// come.
const UNKNOWN: &str = "unknown";

/// The stacks of a task.
#[derive(Default)]
pub(super) struct Stacks {
    /// It was seen to switch between stacks that were taken for one: a call returned that could only have been
    /// left. What lies in what, and what is over, is no longer proved by places.
    pub(super) close: bool,
    /// Functions and places of calls that were taken to be left.
    left: VecDeque<(u32, StackPointer)>,
    lanes: Vec<Lane>,
    /// The one that the last hit was on.
    current: usize,
    /// An exception that is about to be raised, and where it comes from if that is known.
    pub(super) coming: Option<Option<Place>>,
    /// Those that were.
    pub(super) raises: Raises,
}

/// One stack; the innermost call is the last.
#[derive(Default)]
struct Lane {
    frames: Vec<Frame>,
}

impl Lane {
    fn holds(&self, sp: StackPointer, close: bool) -> bool {
        let (Some(base), Some(top)) = (self.frames.first(), self.frames.last()) else {
            return false;
        };
        // Wrapping: a goroutine's places are counted from the end of its stack, below zero.
        let below = top.sp.0.wrapping_sub(sp.0);
        let above = sp.0.wrapping_sub(base.sp.0);
        let (below_max, above_max) =
            if close { (BELOW_IF_CLOSE, ABOVE_IF_CLOSE) } else { (BELOW, ABOVE) };
        (sp >= top.sp && sp <= base.sp) || below <= below_max || above <= above_max
    }
}

/// A call that is over without its return having been seen.
pub(super) struct Gone {
    pub(super) frame: Frame,
    pub(super) at: MonoNs,
    pub(super) reason: &'static str,
}

impl Stacks {
    /// The innermost open call on the stack in use.
    pub(super) fn innermost(&mut self) -> Option<&mut Frame> {
        self.lanes.get_mut(self.current)?.frames.last_mut()
    }

    /// The innermost open call on the stack in use that becomes a span.
    pub(super) fn innermost_told(&mut self) -> Option<&mut Frame> {
        let lane = self.lanes.get_mut(self.current)?;
        lane.frames.iter_mut().rev().find(|frame| !frame.silent)
    }

    /// An open call, by its span.
    pub(super) fn call(&mut self, home: Home) -> Option<&mut Frame> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.frames).rev().find(|frame| home.is(frame))
    }

    /// Whether nothing is open, and nothing is said that later hits may need.
    pub(super) fn is_idle(&self) -> bool {
        self.coming.is_none() && self.lanes.iter().all(|lane| lane.frames.is_empty())
    }

    /// Marks that hits were lost: what is open may be over.
    pub(super) fn lost(&mut self, hits: u32) {
        self.raises.muddle();
        // A return may come whose entry was lost.
        self.left.clear();
        for frame in self.lanes.iter_mut().flat_map(|lane| &mut lane.frames) {
            frame.lost = frame.lost.saturating_add(hits);
        }
    }

    /// Goes to the stack that `sp` is on, and ends the calls that an entry there shows to be over.
    pub(super) fn before_entry(
        &mut self,
        sp: StackPointer,
        function: u32,
        at: MonoNs,
        gone: &mut Vec<Gone>,
    ) {
        self.switch(sp, at, gone);
        let Some(lane) = self.lanes.get_mut(self.current) else { return };
        // What stands in its place is over, unless it has jumped to this very function.
        let is_over = |frame: &mut Frame| {
            let jumped_here = frame.jumped.as_ref().is_some_and(|jump| jump.into == function);
            frame.sp < sp || (frame.sp == sp && !jumped_here)
        };
        let before = gone.len();
        while let Some(frame) = lane.frames.pop_if(is_over) {
            gone.push(Gone::new(frame, at));
        }
        self.left_without_return(gone, before);
    }

    /// Remembers calls that are taken to be left, so that it is noticed if they were not.
    fn left_without_return(&mut self, gone: &mut [Gone], before: usize) {
        for gone in gone.iter_mut().skip(before).filter(|gone| gone.reason == UNWOUND) {
            if self.close {
                gone.reason = UNKNOWN;
                continue;
            }
            if self.left.len() >= LEFT_MAX {
                self.left.pop_front();
            }
            self.left.push_back((gone.frame.function.facts.number, gone.frame.sp));
        }
    }

    /// Goes to the stack that `sp` is on if calls are open on it, and ends those that something which
    /// happens there shows to be over.
    pub(super) fn before_event(&mut self, sp: StackPointer, at: MonoNs, gone: &mut Vec<Gone>) {
        let close = self.close;
        let holds = |lane: &Lane| lane.holds(sp, close);
        if !self.lanes.get(self.current).is_some_and(holds) {
            let Some(known) = self.lanes.iter().position(holds) else { return };
            self.current = known;
        }
        let Some(lane) = self.lanes.get_mut(self.current) else { return };
        while let Some(frame) = lane.frames.pop_if(|frame| frame.sp < sp) {
            gone.push(Gone::new(frame, at));
        }
    }

    /// Ends the calls that have been left when something is called, with its return address at `sp`, by
    /// the one that has caught what they threw: what that one had called stood in the same place.
    pub(super) fn caught(&mut self, sp: StackPointer, at: MonoNs, gone: &mut Vec<Gone>) {
        self.before_event(sp, at, gone);
        let Some(lane) = self.lanes.get_mut(self.current).filter(|lane| lane.holds(sp, self.close))
        else {
            return;
        };
        while let Some(frame) = lane.frames.pop_if(|frame| frame.sp <= sp) {
            gone.push(Gone::new(frame, at));
        }
    }

    /// Opens a call.
    pub(super) fn push(&mut self, frame: Frame) {
        match self.lanes.get_mut(self.current) {
            Some(lane) => {
                self.left.retain(|(_, sp)| *sp != frame.sp);
                // Only what has jumped here is left in its place.
                let below = lane.frames.last_mut().filter(|below| below.sp == frame.sp);
                if let Some(jump) = below.and_then(|below| below.jumped.as_mut()) {
                    jump.is_entered = true;
                }
                lane.frames.push(frame);
            }
            None => {
                self.current = self.lanes.len();
                self.lanes.push(Lane { frames: vec![frame] });
            }
        }
    }

    /// The call of which `matches` returns at `sp`, with all that ended with it: those below, which had
    /// been left, and those that had jumped into it, which return with it.
    pub(super) fn returned(
        &mut self,
        sp: StackPointer,
        at: MonoNs,
        function: &Arc<Function>,
        gone: &mut Vec<Gone>,
    ) -> Returned {
        let matches = |frame: &Frame| Arc::ptr_eq(&frame.function, function);
        let found = self.lanes.iter().position(|lane| {
            // From the inside: recursion leaves many.
            lane.frames.iter().rev().take_while(|frame| frame.sp <= sp).any(|frame| frame.sp == sp)
        });
        let Some(index) = found else {
            self.close |= self.left.contains(&(function.facts.number, sp));
            return Returned::default();
        };
        self.current = index;
        let before = gone.len();
        let Some(lane) = self.lanes.get_mut(index) else { return Returned::default() };
        while let Some(frame) = lane.frames.pop_if(|frame| frame.sp < sp) {
            gone.push(Gone::new(frame, at));
        }
        let mut returned = Returned::default();
        if let Some(frame) = lane.frames.pop_if(|frame| frame.sp == sp && matches(frame)) {
            returned.call = Some(frame);
        }
        while let Some(frame) = lane.frames.pop_if(|frame| frame.sp == sp) {
            if frame.jumped.is_some() {
                returned.jumped.push(frame);
            } else {
                gone.push(Gone::new(frame, at));
            }
        }
        self.left_without_return(gone, before);
        returned
    }

    /// Everything that is open, innermost first on each stack.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Frame> + use<> {
        mem::take(&mut self.lanes).into_iter().flat_map(|lane| lane.frames.into_iter().rev())
    }

    fn switch(&mut self, sp: StackPointer, at: MonoNs, gone: &mut Vec<Gone>) {
        let close = self.close;
        if self.lanes.get(self.current).is_some_and(|lane| lane.holds(sp, close)) {
            return;
        }
        let known = self.lanes.iter().position(|lane| lane.holds(sp, close));
        if let Some(index) =
            known.or_else(|| self.lanes.iter().position(|lane| lane.frames.is_empty()))
        {
            self.current = index;
            return;
        }
        if self.lanes.len() >= LANES_MAX {
            let oldest = self.lanes.remove(0);
            gone.extend(oldest.frames.into_iter().rev().map(|frame| Gone::new(frame, at)));
        }
        self.current = self.lanes.len();
        self.lanes.push(Lane::default());
    }
}

/// What ended with a return.
#[derive(Default)]
pub(super) struct Returned {
    /// The call that returned.
    pub(super) call: Option<Frame>,
    /// Calls that had ended with a jump into it.
    pub(super) jumped: Vec<Frame>,
}

impl Gone {
    /// Why its return was not seen, and when it was over at the latest.
    pub(super) fn new(frame: Frame, at: MonoNs) -> Self {
        match frame.jumped {
            Some(Jump { at, is_entered: false, .. }) => Self { frame, at, reason: "tail_call" },
            _ if frame.lost > 0 => Self { frame, at, reason: "lost" },
            _ => Self { frame, at, reason: UNWOUND },
        }
    }
}
