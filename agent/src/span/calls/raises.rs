//! Exceptions that a task has raised and of which it may still be learned whether they are caught, each
//! with the event that tells it.

use std::collections::VecDeque;

use agent_common::task_kind;

use super::stack::Stacks;
use super::{Belongs, Calls, Frame};
use crate::event::Hit;
use crate::event::ids::{StackPointer, TaskId};
use crate::function::exception::{
    self, Catch, Catcher, CatcherKind, Decode, EVENT, Fate, Passed, Raised, Runtime, Which,
};
use crate::span::events::Events;
use crate::span::exchange::ExchangeKey;
use crate::span::model::{Method, SpanId};
use crate::span::state::State;

/// Most exceptions of one task that are remembered; the oldest are forgotten.
const RAISES_MAX: usize = 32;

/// Of one task, in the order in which they were raised.
#[derive(Default)]
pub(super) struct Raises {
    list: VecDeque<Raise>,
}

/// An exception.
pub(super) struct Raise {
    /// Who has raised it.
    pub(super) runtime: Runtime,
    /// What tells it from the others; `None`: only the order does.
    pub(super) object: Option<u64>,
    /// What it is made of, where it was not there yet.
    pub(super) made_of: Option<u64>,
    /// Where it was raised.
    pub(super) sp: StackPointer,
    /// Its type.
    pub(super) name: String,
    /// Whose event tells it; `None`: none.
    pub(super) home: Option<(Home, usize)>,
    /// It ends the program.
    pub(super) is_over: bool,
}

/// A span, and its event's place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// A call.
    Call(SpanId),
    /// A request.
    Request(ExchangeKey),
}

impl Raises {
    /// One more.
    pub(super) fn add(&mut self, raise: Raise) {
        if self.list.len() >= RAISES_MAX {
            self.list.pop_front();
        }
        // Where the object was another one before, that is gone.
        self.list.retain(|known| known.object.is_none() || known.object != raise.object);
        self.list.push_back(raise);
    }

    /// Those of which the order alone tells which is which are no longer known: others came between. Of
    /// Python nobody says which ones are gone, so that an object may be another's.
    pub(super) fn muddle(&mut self) {
        let is_known = |raise: &Raise| raise.object.is_some() && raise.runtime != Runtime::Python;
        self.list.retain(is_known);
    }

    /// One ends the program.
    fn over(&mut self, object: u64) {
        for raise in self.list.iter_mut().filter(|raise| raise.object == Some(object)) {
            raise.is_over = true;
        }
    }

    /// The one that is meant, raised no higher on the stack than `above`. It may be raised again as the
    /// same object; without one it is forgotten, with all that were raised later.
    fn find(&mut self, runtime: Runtime, which: Which, above: StackPointer) -> Option<Raise> {
        let is_it = |raise: &Raise| {
            let is_it = match which {
                Which::Object(object) => raise.object == Some(object),
                Which::Made { exception, .. } => raise.object == Some(exception),
                Which::Latest => true,
                Which::Unknown => false,
            };
            is_it && raise.runtime == runtime && raise.sp <= above
        };
        let place = self.list.iter().rposition(is_it).or_else(|| self.made(runtime, which))?;
        let raise = self.list.get(place)?;
        let found = Raise { name: raise.name.clone(), ..*raise };
        if which == Which::Latest {
            self.list.truncate(place);
        }
        Some(found)
    }
}

impl Raises {
    /// The only one that is made of what this is made of.
    fn made(&self, runtime: Runtime, which: Which) -> Option<usize> {
        let Which::Made { of, .. } = which else { return None };
        let is_it = |raise: &Raise| {
            raise.runtime == runtime && raise.made_of.is_some() && of.contains(&raise.made_of)
        };
        let mut places = (0..).zip(&self.list).filter(|(_, raise)| is_it(raise));
        let (place, _) = places.next()?;
        places.next().is_none().then_some(place)
    }
}

/// What an exception's type is called where it has to have one.
pub(super) fn name(raised: &Raised) -> String {
    if raised.name.is_empty() { EVENT.to_owned() } else { raised.name.clone() }
}

impl Calls {
    /// Remembers an exception that was raised, and the event that tells it.
    pub(super) fn remember(
        &mut self,
        hit: &Hit<'_>,
        decode: Option<Decode>,
        raised: &Raised,
        home: Option<(Home, usize)>,
    ) {
        let Some(decode) = decode else { return };
        let (runtime, name) = (decode.runtime(), name(raised));
        let Raised { object, made_of, .. } = *raised;
        let raise = Raise { runtime, object, made_of, sp: hit.sp, name, home, is_over: false };
        self.stacks(hit).raises.add(raise);
    }

    /// Hits were left out: which exception is meant cannot be told by their order.
    pub(super) fn muddle(&mut self) {
        for stacks in self.tasks.values_mut() {
            stacks.raises.muddle();
        }
    }

    /// An exception is caught, by whoever has called a hook, or by a runtime.
    pub(super) fn caught(
        &mut self,
        hit: &Hit<'_>,
        catch: &Catch,
        (decode, catchers): (Decode, &[Catcher]),
        state: &mut State,
    ) {
        let task = match catch.goroutine {
            Some(id) => TaskId { tgid: hit.tgid, kind: task_kind::GOROUTINE, id },
            None => hit.task,
        };
        let frame = match (catch.goroutine, catch.frame) {
            (Some(_), None) => None,
            (_, Some(frame)) => Some(StackPointer(frame)),
            (None, None) => Some(hit.sp),
        };
        let catcher = exception::catcher(catchers, catch.caller);
        if catcher == Some(Some(CatcherKind::Told)) {
            return;
        }
        let caught = match catcher {
            None | Some(Some(CatcherKind::Caller | CatcherKind::Told)) => None,
            Some(None) => Some(true),
            Some(Some(CatcherKind::Last | CatcherKind::Handler)) => Some(false),
        };
        // Where nobody catches, C++ throws and takes it at the same place.
        let above = frame.filter(|_| decode != Decode::CppCatch);
        let above = above.unwrap_or(StackPointer(u64::MAX));
        let raise = self.find(task, decode.runtime(), catch.which, above);
        if raise.as_ref().is_some_and(|raise| raise.is_over) {
            // What ends the program may look at why it does.
            return;
        }
        if let (Some(raise), Some(caught)) = (&raise, caught) {
            self.tell(task, raise, caught, state);
        }
        let ends = decode == Decode::CppCatch && caught == Some(false);
        if let (Some(raise), Some(false)) = (&raise, caught) {
            let leaves_handler = catcher == Some(Some(CatcherKind::Handler));
            self.fail_request(task, raise, leaves_handler, state);
        }
        let mut gone = std::mem::take(&mut self.gone);
        if let (Some(stacks), Some(frame)) = (self.tasks.get_mut(&task), frame) {
            match catch.goroutine {
                // Of the function itself that catches.
                Some(_) => stacks.before_event(frame, hit.at, &mut gone),
                None => stacks.caught(frame, hit.at, &mut gone),
            }
        }
        self.leave(&mut gone, task, state);
        self.gone = gone;
        if ends
            && let Which::Object(object) = catch.which
            && let Some(stacks) = self.tasks.get_mut(&task)
        {
            stacks.raises.over(object);
        }
        let call = self.tasks.get_mut(&task).and_then(Stacks::innermost_told);
        let Some(call) = call else { return };
        match raise {
            Some(raise) if ends => {
                call.is_fatal = true;
                call.raised = Some(raise.name);
            }
            _ if ends => {}
            _ => call.caught = call.raised.take(),
        }
    }

    /// An exception has left the handler of a request, and will be caught by the server.
    pub(super) fn left_handler(
        &mut self,
        hit: &Hit<'_>,
        catch: &Catch,
        catchers: &[Catcher],
        state: &mut State,
    ) {
        if exception::catcher(catchers, catch.caller) != Some(Some(CatcherKind::Handler)) {
            return;
        }
        let above = catch.frame.map_or(StackPointer(u64::MAX), StackPointer);
        if let Some(raise) = self.find(hit.task, Runtime::Go, catch.which, above) {
            self.tell(hit.task, &raise, false, state);
            self.fail_request(hit.task, &raise, true, state);
        }
    }

    /// An exception that was raised before comes by.
    pub(super) fn passed(
        &mut self,
        hit: &Hit<'_>,
        decode: Decode,
        passed: Passed,
        state: &mut State,
    ) {
        // It may have been made anywhere.
        let (which, above) = (Which::Object(passed.object), StackPointer(u64::MAX));
        let raise = self.find(hit.task, decode.runtime(), which, above);
        if let Some((home, place)) = raise.and_then(|raise| raise.home)
            && let Some(events) = self.events(hit.task, home, state)
        {
            if passed.fate == Fate::Caught {
                events.caught(place, true);
            } else {
                events.goes_on(place);
            }
            if let Some(message) = passed.message {
                events.says(place, message);
            }
        }
        if passed.fate == Fate::Uncaught {
            self.uncaught(hit, which, decode, state);
        }
    }

    /// Nobody has caught an exception.
    pub(super) fn uncaught(
        &mut self,
        hit: &Hit<'_>,
        which: Which,
        decode: Decode,
        state: &mut State,
    ) {
        let task = hit.task;
        let Some(raise) = self.find(task, decode.runtime(), which, StackPointer(u64::MAX)) else {
            return;
        };
        self.tell(task, &raise, false, state);
        if decode == Decode::PythonUnraisable {
            // Its program goes on where it was.
            return;
        }
        // In Node a listener of the process may yet answer.
        self.fail_request(task, &raise, decode != Decode::NodeUncaught, state);
        if decode == Decode::GoUncaught
            && let Some(call) = self.tasks.get_mut(&task).and_then(Stacks::innermost_told)
        {
            call.is_fatal = true;
            call.raised = Some(raise.name);
        }
    }

    fn find(
        &mut self,
        task: TaskId,
        runtime: Runtime,
        which: Which,
        above: StackPointer,
    ) -> Option<Raise> {
        self.tasks.get_mut(&task)?.raises.find(runtime, which, above)
    }

    /// Puts on an event whether its exception was caught, if its span is still open.
    fn tell(&mut self, task: TaskId, raise: &Raise, caught: bool, state: &mut State) {
        let Some((home, place)) = raise.home else { return };
        if let Some(events) = self.events(task, home, state) {
            events.caught(place, caught);
        }
    }

    /// The events of a span of a task's, if it is still open.
    fn events<'a>(
        &'a mut self,
        task: TaskId,
        home: Home,
        state: &'a mut State,
    ) -> Option<&'a mut Events> {
        match home {
            Home::Call(_) => {
                let call = self.tasks.get_mut(&task).and_then(|stacks| stacks.call(home));
                call.map(|call| &mut call.events)
            }
            Home::Request(key) => {
                state.exchanges.get_mut(key).map(|exchange| &mut exchange.happened().events)
            }
        }
    }

    /// The request that a task serves has failed with an exception that nobody has caught. That it is
    /// this request must be certain where its answer may say something else.
    fn fail_request(
        &mut self,
        task: TaskId,
        raise: &Raise,
        leaves_handler: bool,
        state: &mut State,
    ) {
        let place = self.place(task, state).and_then(|place| match place.belongs {
            Belongs::Request { key, method, .. } => Some((key, method != Method::Resume)),
            Belongs::Own(_) => None,
        });
        // A stack that is unwound may have closed the connection by then.
        let (key, is_certain) = match (place, raise.home) {
            (Some(place), _) => place,
            (None, Some((Home::Request(key), _))) => (key, false),
            _ => return,
        };
        if let Some(exchange) = state.exchanges.get_mut(key) {
            let happened = exchange.happened();
            happened.raised = Some(raise.name.clone());
            happened.unhandled |= leaves_handler && is_certain;
        }
    }
}

impl Home {
    /// Whether it is the span of a call.
    pub(super) fn is(self, frame: &Frame) -> bool {
        self == Self::Call(frame.span_id)
    }
}
