//! How calls end: with a return, with what lay below them, with their thread or process, or with us; and
//! what they say then to the call that they lay within.

use std::sync::Arc;

use super::stack::{Gone, Stacks, UNWOUND};
use super::{Belongs, Calls, Ended, Frame, finish};
use crate::event::exit::ExitStatus;
use crate::event::ids::{TaskId, Tgid};
use crate::function::facts::Role;
use crate::function::value::Failure;
use crate::platform::clock::MonoNs;
use crate::span::finish::describe_exit;
use crate::span::model::SpanId;
use crate::span::state::State;

/// What calls that have ended say to the one that they lay within.
#[derive(Default)]
pub(super) struct Outward {
    /// The call that a span names as its parent.
    needed: Option<SpanId>,
    /// The type of an exception that has left them.
    pub(super) raised: Option<String>,
    /// It ends the process.
    is_fatal: bool,
}

impl Calls {
    /// A process, or the program in it, is gone, and with it all its calls.
    pub(in crate::span) fn exit(
        &mut self,
        tgid: Tgid,
        at: MonoNs,
        status: Option<ExitStatus>,
        state: &mut State,
    ) {
        self.close.remove(&tgid);
        let tasks: Vec<_> = self.tasks.keys().filter(|task| task.tgid == tgid).copied().collect();
        for task in tasks {
            self.forget(task, at, "exit", status, state);
        }
    }

    /// A thread is gone, alone or with its process, or is another one by now.
    pub(in crate::span) fn thread(
        &mut self,
        task: TaskId,
        at: MonoNs,
        status: Option<ExitStatus>,
        state: &mut State,
    ) {
        self.forget(task, at, "exit", status, state);
    }

    /// Nothing more will come.
    pub(in crate::span) fn stop(&mut self, at: MonoNs, state: &mut State) {
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        for task in tasks {
            self.forget(task, at, "agent_stopped", None, state);
        }
    }

    fn forget(
        &mut self,
        task: TaskId,
        at: MonoNs,
        reason: &'static str,
        status: Option<ExitStatus>,
        state: &mut State,
    ) {
        let Some(mut stacks) = self.tasks.remove(&task) else { return };
        let mut outward = Outward::default();
        for frame in stacks.take() {
            let mut gone = Gone::new(frame, at);
            if gone.reason == UNWOUND {
                gone.reason = reason;
                if let Some(status) = status.filter(|status| !status.is_success()) {
                    describe_exit(status, &mut gone.frame.attributes);
                }
            }
            self.end(gone.frame, task, gone.at, Some(gone.reason), &mut outward, state);
        }
    }

    pub(super) fn leave(&mut self, gone: &mut Vec<Gone>, task: TaskId, state: &mut State) {
        let mut outward = Outward::default();
        self.leave_each(gone, task, &mut outward, state);
        self.tell_caller(task, outward);
    }

    pub(super) fn leave_each(
        &mut self,
        gone: &mut Vec<Gone>,
        task: TaskId,
        outward: &mut Outward,
        state: &mut State,
    ) {
        for Gone { frame, at, reason } in gone.drain(..) {
            self.end(frame, task, at, Some(reason), outward, state);
        }
    }

    /// A call is over. `outward` is what those that ended within it have to say, and then what it has
    /// to say to the one that it lay within.
    pub(super) fn end(
        &mut self,
        mut frame: Frame,
        task: TaskId,
        at: MonoNs,
        inferred: Option<&'static str>,
        outward: &mut Outward,
        state: &mut State,
    ) {
        self.open = self.open.saturating_sub(1);
        if outward.needed == Some(frame.span_id) {
            frame.needed = true;
            frame.raised = outward.raised.take().or(frame.raised.take());
            frame.is_fatal |= outward.is_fatal;
        }
        let min_ns = match frame.function.facts.role {
            Role::Call { min_ns, .. } => min_ns,
            Role::Event { .. } => 0,
        };
        let is_needed = frame.needed || !frame.events.is_empty();
        let short = at.since(frame.start) < min_ns && !is_needed;
        let process = state.processes.get(&task.tgid);
        let Some(process) = process.filter(|_| !frame.silent && !short) else {
            self.tallies.left_out += 1;
            finish::release(&frame.belongs, state);
            return;
        };
        self.tallies.inferred += u64::from(inferred.is_some());
        let resource = Arc::clone(&process.resource);
        // It went through this call and was not caught in it.
        let has_left = inferred == Some(UNWOUND) || (frame.is_fatal && inferred.is_some());
        let raised = frame.raised.take().filter(|_| has_left);
        outward.is_fatal = frame.is_fatal && raised.is_some();
        outward.raised = raised.clone();
        let failed = raised.map(|kind| Failure { kind: kind.into(), message: None });
        let failed = failed.or(frame.failure.take());
        outward.needed = frame.above;
        if frame.above.is_none()
            && let Belongs::Request { key, .. } = &frame.belongs
            && let Some(raised) = outward.raised.take()
            && let Some(exchange) = state.exchanges.get_mut(*key)
        {
            exchange.happened().raised = Some(raised);
        }
        self.ended.push_back(Ended { frame, resource, task, at, inferred, failed });
    }

    /// What the calls that ended have to say to the one that they lay within.
    pub(super) fn tell_caller(&mut self, task: TaskId, outward: Outward) {
        let call = self.tasks.get_mut(&task).and_then(Stacks::innermost_told);
        if let Some(call) = call.filter(|call| Some(call.span_id) == outward.needed) {
            call.needed = true;
            call.raised = outward.raised.or(call.raised.take());
        }
    }
}
