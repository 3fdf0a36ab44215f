//! What happens in the middle of calls: exceptions, signals, static tracepoints. Each is an event of the
//! innermost span of its task.

use std::sync::Arc;

use agent_common::function::IMAGE_OF_SIGNAL;

use super::exception::{self, Raise};
use super::raises::{self, Home};
use super::stack::Stacks;
use super::{Belongs, Calls, Function, Place, STACK_LEFT_OUT, values};
use crate::event::Hit;
use crate::event::ids::{SiteNo, TaskId, Tid};
use crate::function::exception::{EVENT as EXCEPTION, Raised};
use crate::function::facts::Role;
use crate::function::value::Reader;
use crate::platform::clock::MonoNs;
use crate::span::model::SpanEvent;
use crate::span::state::State;
use crate::stack::Inner;

/// How long what was raised is taken to be on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// Until a call that it went through returns.
    UntilCaught,
    /// It ends the process.
    ToTheEnd,
}

impl Calls {
    /// Something happened: an event of the innermost span of its task.
    pub(super) fn event(
        &mut self,
        hit: &Hit<'_>,
        (function, reader): (&Arc<Function>, Option<&Reader>),
        stack: Option<&str>,
        state: &mut State,
    ) {
        let Role::Event { name, decode, catchers } = &function.facts.role else { return };
        let mut coming = self.tasks.get_mut(&hit.task).and_then(|stacks| stacks.coming.take());
        let exception = decode.map(|decode| exception::of(decode, hit.chunks, &mut coming));
        if coming.is_some() {
            self.stacks(hit).coming = coming;
        }
        if decode.is_some() && hit.suppressed > 0 {
            self.muddle();
        }
        match (&exception, *decode) {
            (Some(Raise::Caught(catch)), Some(decode)) => {
                self.caught(hit, catch, (decode, catchers), state);
                return;
            }
            (Some(Raise::LeftHandler(catch)), _) => {
                self.left_handler(hit, catch, catchers, state);
                return;
            }
            _ => {}
        }
        let mut gone = std::mem::take(&mut self.gone);
        if let Some(stacks) = self.tasks.get_mut(&hit.task) {
            stacks.before_event(hit.sp, hit.at, &mut gone);
        }
        self.leave(&mut gone, hit.task, state);
        self.gone = gone;
        let mut lasting = Lasting::UntilCaught;
        let exception = match exception {
            Some(Raise::None | Raise::Caught(_) | Raise::LeftHandler(_)) => return,
            Some(Raise::Old) => {
                self.remember(hit, *decode, &Raised::default(), None);
                return;
            }
            Some(Raise::Passed(passed)) => {
                if let Some(decode) = *decode {
                    self.passed(hit, decode, passed, state);
                }
                return;
            }
            Some(Raise::Uncaught(which)) => {
                if let Some(decode) = *decode {
                    self.uncaught(hit, which, decode, state);
                }
                return;
            }
            Some(Raise::GoesOn) => {
                let call = self.tasks.get_mut(&hit.task).and_then(Stacks::innermost_told);
                if let Some(call) = call {
                    call.raised = call.caught.take().or(call.raised.take());
                }
                return;
            }
            Some(Raise::ControlFlow) => {
                self.tallies.control_flow += 1;
                return;
            }
            Some(Raise::Unknown) | None => Raised::default(),
            Some(Raise::Known(raised)) => raised,
            Some(Raise::Fatal(raised)) => {
                lasting = Lasting::ToTheEnd;
                raised
            }
        };
        let mut attributes = exception::attributes(&exception, stack);
        if let Some(reader) = reader {
            attributes.append(&values(reader, hit));
        }
        if let Some(why) = hit.stack_left_out {
            attributes.text(STACK_LEFT_OUT, why.as_str());
        }
        if hit.suppressed > 0 {
            attributes.int("remora.suppressed", i64::from(hit.suppressed));
        }
        let event = SpanEvent { name: name.clone(), time: state.wall.wall(hit.at), attributes };
        let raised = (name == EXCEPTION).then(|| raises::name(&exception));
        let home = self.happened(hit.task, event, raised, lasting, state);
        self.remember(hit, *decode, &exception, home);
    }

    /// A signal ends the process of `task` with an error.
    pub(in crate::span) fn signal(
        &mut self,
        (task, tid): (TaskId, Tid),
        at: MonoNs,
        number: u32,
        state: &mut State,
    ) {
        let raised = exception::of_signal(number);
        let stack = self.waiting.take(at, (task.tgid, tid), SiteNo(IMAGE_OF_SIGNAL), Inner::Own);
        let attributes = exception::attributes(&raised, stack.as_deref());
        let event = SpanEvent { name: EXCEPTION.to_owned(), time: state.wall.wall(at), attributes };
        self.happened(task, event, Some(raised.name), Lasting::ToTheEnd, state);
    }

    /// An event of the innermost span of a task, and the type of what was raised, if it is that.
    fn happened(
        &mut self,
        task: TaskId,
        event: SpanEvent,
        raised: Option<String>,
        lasting: Lasting,
        state: &mut State,
    ) -> Option<(Home, usize)> {
        let ends = lasting == Lasting::ToTheEnd;
        let events = match self.place(task, state) {
            Some(Place { call: Some(call), .. }) => {
                self.tasks.get_mut(&task).and_then(Stacks::innermost_told).map(|frame| {
                    // The first one that ends the process is why it ends.
                    let ends_already = frame.is_fatal && frame.raised.is_some();
                    frame.is_fatal |= ends;
                    let raised = (!ends_already).then_some(&mut frame.raised);
                    (&mut frame.events, raised, Home::Call(call))
                })
            }
            Some(Place { belongs: Belongs::Request { key, .. }, call: None }) => {
                state.exchanges.get_mut(key).map(|exchange| {
                    // Whether another one is caught may not be seen.
                    let happened = exchange.happened();
                    let raised = (ends && !happened.unhandled).then_some(&mut happened.raised);
                    (&mut happened.events, raised, Home::Request(key))
                })
            }
            _ => None,
        };
        let Some((events, told, home)) = events else {
            self.tallies.homeless += 1;
            return None;
        };
        if let (Some(told), Some(raised)) = (told, raised) {
            *told = Some(raised);
        }
        let Some(place) = events.add(event) else {
            self.tallies.too_many_events += 1;
            return None;
        };
        if ends {
            events.caught(place, false);
        }
        Some((home, place))
    }
}
