//! Calls of probed functions: nests the hits of their probes into spans. Within one task a call lies
//! within the innermost open call on its stack, or within the request that the task serves, whichever
//! began later.
//!
//! Pure, as all of `span`. What a hit read is not looked into here: readers turn it into attributes.

mod exception;
mod finish;
mod raises;
mod stack;
mod taken;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use agent_common::function::IMAGE_OF_SIGNAL;
use agent_common::function::site_number::PLACE_MASK;

use super::attributes::Attributes;
use super::events::Events;
use super::exchange::{Exchange, ExchangeKey, Origin, Trace};
use super::finish::describe_exit;
use super::model::{Confidence, Kind, Method, Resource, SpanEvent, SpanId};
use super::sampler::Sampler;
use super::state::State;
use super::{redact, tasks};
use crate::event::Hit;
use crate::event::exit::ExitStatus;
use crate::event::ids::{SiteNo, StackPointer, TaskId, Tgid, Tid};
use crate::function::exception::{EVENT as EXCEPTION, Raised};
use crate::function::facts::{FunctionFacts, Role};
use crate::function::future;
use crate::function::site::SiteKind;
use crate::function::value::{Failure, Reader, Value};
use crate::platform::clock::MonoNs;
use crate::stack::{Inner, Taken};
use exception::Raise;
use raises::Home;
use stack::{Gone, Stacks, UNWOUND};
use taken::Waiting;

/// Most calls that are open at one time, over all tasks; entries beyond are counted.
const OPEN_MAX: usize = 1 << 18;

/// From how many tasks on those in which nothing is open are looked for.
const TASKS: usize = 1 << 10;

/// W3C's "sampled" flag.
const SAMPLED: u8 = 1;

/// An open call.
pub(super) struct Frame {
    function: Arc<Function>,
    sp: StackPointer,
    start: MonoNs,
    span_id: SpanId,
    belongs: Belongs,
    /// The call that it lies within; `None` if it lies directly within what it belongs to.
    above: Option<SpanId>,
    /// What was read at its entry, and then at its return.
    attributes: Attributes,
    /// What its result says of a failure.
    failure: Option<Failure>,
    events: Events,
    /// The type of an exception that was raised within it and has not been seen to be caught.
    raised: Option<String>,
    /// The type of the one that was caught last.
    caught: Option<String>,
    /// What was raised ends the process.
    is_fatal: bool,
    /// Hits of its task that were lost since it began.
    lost: u32,
    /// Calls of the function that were left out before it.
    suppressed: u32,
    /// It has jumped to another function: when, and to which.
    jumped: Option<(MonoNs, u32)>,
    /// It makes no span; what lies within it lies within what it lies within.
    silent: bool,
    /// A span that was or will be handed out names it as its parent.
    needed: bool,
}

/// The trace of a call.
#[derive(Clone, Debug)]
pub(super) enum Belongs {
    /// That of the request which its task serves.
    Request { key: ExchangeKey, method: Method, confidence: Confidence },
    /// Its own, or its outermost caller's.
    Own(Trace),
}

/// Where something that a task does belongs: the span that it lies within.
pub(super) struct Place {
    pub(super) belongs: Belongs,
    /// The call; `None`: directly within the request.
    pub(super) call: Option<SpanId>,
}

/// A function that is probed.
struct Function {
    facts: Arc<FunctionFacts>,
    /// What all its spans say alike.
    standing: Attributes,
}

/// A probe of a function.
struct Site {
    number: u32,
    function: Arc<Function>,
    /// Which one of the function's.
    index: usize,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTallies {
    /// Spans of calls handed out.
    pub spans: u64,
    /// Calls left out because they were short or outside of requests, as was asked.
    pub left_out: u64,
    /// Calls that the budget or a rate left out, as far as later hits have told.
    pub suppressed: u64,
    /// Calls of which the return was not seen.
    pub inferred: u64,
    /// Returns of calls of which the entry was not seen.
    pub unentered: u64,
    /// Hits that were lost on their way.
    pub lost: u64,
    /// Hits of probes that were not announced.
    pub unknown: u64,
    /// Calls not followed because too many were open.
    pub too_many: u64,
    /// Calls in traces that the sampler leaves out.
    pub unsampled: u64,
    /// Events that happened outside of any span.
    pub homeless: u64,
    /// Events beyond what a span takes.
    pub too_many_events: u64,
    /// Exceptions that are how a language ends a loop.
    pub control_flow: u64,
}

/// Open calls, and those that are over and wait to be handed out.
#[derive(Default)]
pub(super) struct Calls {
    /// By their place in the kernel half's map: the site that has it, or had it last.
    sites: Vec<Option<Site>>,
    tasks: HashMap<TaskId, Stacks, foldhash::fast::RandomState>,
    /// How many there may be before those in which nothing is open are forgotten.
    tasks_max: usize,
    open: usize,
    ended: VecDeque<Ended>,
    /// Those that wait for a proof of their place.
    unproved: VecDeque<Ended>,
    /// Stacks of hits to come.
    waiting: Waiting,
    /// Room for what one hit ends.
    gone: Vec<Gone>,
    tallies: CallTallies,
}

/// A call that is over.
struct Ended {
    frame: Frame,
    resource: Arc<Resource>,
    task: TaskId,
    at: MonoNs,
    /// Why its return was not seen, if it was not.
    inferred: Option<&'static str>,
    /// Why it failed: an exception has left it, or its result says so.
    failed: Option<Failure>,
}

impl Calls {
    /// Announces a function and its probes.
    pub(super) fn function(&mut self, facts: &Arc<FunctionFacts>) {
        let mut standing = Attributes::default();
        standing.text("code.function.name", &facts.name);
        if let Some(source) = &facts.source {
            standing.text("code.file.path", &source.file);
            if source.line > 0 {
                standing.int("code.line.number", i64::from(source.line));
            }
        }
        let function = Arc::new(Function { facts: Arc::clone(facts), standing });
        for (index, site) in facts.sites.iter().enumerate() {
            let place = (site.number & PLACE_MASK) as usize;
            if self.sites.len() <= place {
                self.sites.resize_with(place + 1, || None);
            }
            if let Some(place) = self.sites.get_mut(place) {
                *place = Some(Site { number: site.number, function: Arc::clone(&function), index });
            }
        }
    }

    /// Whether any function is probed.
    pub(super) fn is_in_use(&self) -> bool {
        !self.sites.is_empty()
    }

    /// What was counted.
    pub(super) fn tallies(&self) -> CallTallies {
        self.tallies
    }

    /// Whether calls wait to be handed out.
    pub(super) fn is_pending(&self) -> bool {
        !self.ended.is_empty() || !self.unproved.is_empty()
    }

    /// Takes in the stack of a record to come.
    pub(super) fn taken(&mut self, taken: &Arc<Taken>) {
        self.waiting.add(taken);
    }

    /// Takes in a hit.
    pub(super) fn hit(&mut self, hit: &Hit<'_>, state: &mut State, sampler: Sampler) {
        self.tallies.suppressed += u64::from(hit.suppressed);
        self.tallies.lost += u64::from(hit.lost);
        if hit.lost > 0
            && let Some(stacks) = self.tasks.get_mut(&hit.task)
        {
            stacks.lost(hit.lost);
        }
        let SiteNo(number) = hit.site;
        let known = self.sites.get((number & PLACE_MASK) as usize).and_then(Option::as_ref);
        // One of a site that had the place before comes too late.
        let Some(known) = known.filter(|known| known.number == number) else {
            self.tallies.unknown += 1;
            return;
        };
        let (function, index) = (Arc::clone(&known.function), known.index);
        let Some(site) = function.facts.sites.get(index) else { return };
        let reader = site.reader.as_ref();
        let inner = taken::inner(&function.facts.role);
        let stack = self.waiting.take(hit.at, (hit.tgid, hit.tid), hit.site, inner);
        match site.kind {
            SiteKind::Entry => {
                self.entry(hit, (&function, reader), stack.as_deref(), state, sampler);
            }
            SiteKind::Return => self.returned(hit, (&function, reader), state),
            SiteKind::TailCall => match site.into {
                Some(into) => self.jump(hit, &function, into),
                None => self.returned(hit, (&function, reader), state),
            },
            SiteKind::Event => self.event(hit, (&function, reader), stack.as_deref(), state),
        }
    }

    fn entry(
        &mut self,
        hit: &Hit<'_>,
        (function, reader): (&Arc<Function>, Option<&Reader>),
        stack: Option<&str>,
        state: &mut State,
        sampler: Sampler,
    ) {
        let mut gone = std::mem::take(&mut self.gone);
        let stacks = self.stacks(hit);
        stacks.before_entry(hit.sp, function.facts.number, hit.at, &mut gone);
        self.leave(&mut gone, hit.task, state);
        self.gone = gone;
        if self.open >= OPEN_MAX {
            self.tallies.too_many += 1;
            return;
        }
        let in_request = matches!(function.facts.role, Role::Call { in_request: true, .. });
        let place = self.place(hit.task, state);
        let is_within = matches!(&place, Some(Place { belongs: Belongs::Request { .. }, .. }));
        let (belongs, above) = match place {
            Some(Place { belongs, call }) => (belongs, call),
            None => {
                let id = state.ids.trace();
                let (wall, kept) = (state.wall, sampler.keeps(id, None));
                (Belongs::Own(Trace { id, flags: SAMPLED, state: None, wall, kept }), None)
            }
        };
        if let Belongs::Request { key, .. } = belongs
            && let Some(exchange) = state.exchanges.get_mut(key)
        {
            // It stays until this call is told.
            exchange.children += 1;
        }
        let mut attributes = reader.map(|reader| values(reader, hit)).unwrap_or_default();
        if let Some(address) = future::read(hit.chunks) {
            attributes.text("remora.future", &format!("{address:#x}"));
        }
        if let Some(stack) = stack {
            attributes.text("code.stacktrace", stack);
        }
        let frame = Frame {
            function: Arc::clone(function),
            sp: hit.sp,
            start: hit.at,
            span_id: state.ids.span(),
            belongs,
            above,
            attributes,
            failure: None,
            events: Events::default(),
            raised: None,
            caught: None,
            is_fatal: false,
            lost: 0,
            suppressed: hit.suppressed,
            jumped: None,
            silent: in_request && !is_within,
            needed: false,
        };
        self.open += 1;
        if let Some(stacks) = self.tasks.get_mut(&hit.task) {
            stacks.push(frame);
        }
    }

    /// The stacks of a hit's task.
    fn stacks(&mut self, hit: &Hit<'_>) -> &mut Stacks {
        if self.tasks.len() >= self.tasks_max.max(TASKS) {
            // Goroutines come and go unseen.
            self.tasks.retain(|task, stacks| *task == hit.task || !stacks.is_idle());
            self.tasks_max = self.tasks.len() * 2;
        }
        self.tasks.entry(hit.task).or_default()
    }

    fn returned(
        &mut self,
        hit: &Hit<'_>,
        (function, reader): (&Arc<Function>, Option<&Reader>),
        state: &mut State,
    ) {
        let Some(stacks) = self.tasks.get_mut(&hit.task) else {
            self.tallies.unentered += 1;
            return;
        };
        let mut gone = std::mem::take(&mut self.gone);
        let is_it = |frame: &Frame| Arc::ptr_eq(&frame.function, function);
        let returned = stacks.returned(hit.sp, hit.at, is_it, &mut gone);
        self.tallies.unentered += u64::from(returned.call.is_none());
        let mut outward = Outward::default();
        self.leave_each(&mut gone, hit.task, &mut outward, state);
        self.gone = gone;
        let mut returned_call = returned.call;
        if let (Some(frame), Some(reader)) = (&mut returned_call, reader) {
            frame.attributes.append(&values(reader, hit));
            frame.failure = reader.failure(hit.chunks);
        }
        for frame in returned_call.into_iter().chain(returned.jumped) {
            // What was raised within has been caught.
            outward.raised = None;
            self.end(frame, hit.task, hit.at, None, &mut outward, state);
        }
        self.tell_caller(hit.task, outward);
    }

    fn jump(&mut self, hit: &Hit<'_>, function: &Arc<Function>, into: u32) {
        let top = self.tasks.get_mut(&hit.task).and_then(Stacks::innermost);
        match top.filter(|top| top.sp == hit.sp && Arc::ptr_eq(&top.function, function)) {
            Some(frame) => frame.jumped = Some((hit.at, into)),
            None => self.tallies.unentered += 1,
        }
    }

    /// Something happened: an event of the innermost span of its task.
    fn event(
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
        if hit.suppressed > 0 {
            attributes.int("remora.suppressed", i64::from(hit.suppressed));
        }
        let event = SpanEvent { name: name.clone(), time: state.wall.wall(hit.at), attributes };
        let raised = (name == EXCEPTION).then(|| raises::name(&exception));
        let home = self.happened(hit.task, event, raised, lasting, state);
        self.remember(hit, *decode, &exception, home);
    }

    /// A signal ends the process of `task` with an error.
    pub(super) fn signal(
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
                    let raised = (ends && !exchange.unhandled).then_some(&mut exchange.raised);
                    (&mut exchange.events, raised, Home::Request(key))
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

    /// What `task` is in the middle of: the innermost open call, or the request that it serves,
    /// whichever began later.
    pub(super) fn place(&mut self, task: TaskId, state: &State) -> Option<Place> {
        let request = request(task, state);
        let call = self.tasks.get_mut(&task).and_then(Stacks::innermost_told);
        match (call, request) {
            (Some(call), request) if request.as_ref().is_none_or(|(at, _)| *at <= call.start) => {
                Some(Place { belongs: call.belongs.clone(), call: Some(call.span_id) })
            }
            (_, Some((_, belongs))) => Some(Place { belongs, call: None }),
            (_, None) => None,
        }
    }

    /// A span that is handed out names the innermost call of `task` as its parent.
    pub(super) fn need(&mut self, task: TaskId) {
        if let Some(call) = self.tasks.get_mut(&task).and_then(Stacks::innermost_told) {
            call.needed = true;
        }
    }

    /// What the calls that ended have to say to the one that they lay within.
    fn tell_caller(&mut self, task: TaskId, outward: Outward) {
        let call = self.tasks.get_mut(&task).and_then(Stacks::innermost_told);
        if let Some(call) = call.filter(|call| Some(call.span_id) == outward.needed) {
            call.needed = true;
            call.raised = outward.raised.or(call.raised.take());
        }
    }

    /// A process, or the program in it, is gone, and with it all its calls.
    pub(super) fn exit(
        &mut self,
        tgid: Tgid,
        at: MonoNs,
        status: Option<ExitStatus>,
        state: &mut State,
    ) {
        let tasks: Vec<_> = self.tasks.keys().filter(|task| task.tgid == tgid).copied().collect();
        for task in tasks {
            self.forget(task, at, "exit", status, state);
        }
    }

    /// A thread is gone, alone or with its process, or is another one by now.
    pub(super) fn thread(
        &mut self,
        task: TaskId,
        at: MonoNs,
        status: Option<ExitStatus>,
        state: &mut State,
    ) {
        self.forget(task, at, "exit", status, state);
    }

    /// Nothing more will come.
    pub(super) fn stop(&mut self, at: MonoNs, state: &mut State) {
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

    fn leave(&mut self, gone: &mut Vec<Gone>, task: TaskId, state: &mut State) {
        let mut outward = Outward::default();
        self.leave_each(gone, task, &mut outward, state);
        self.tell_caller(task, outward);
    }

    fn leave_each(
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
    fn end(
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
            exchange.raised = Some(raised);
        }
        self.ended.push_back(Ended { frame, resource, task, at, inferred, failed });
    }
}

/// What calls that have ended say to the one that they lay within.
#[derive(Default)]
struct Outward {
    /// The call that a span names as its parent.
    needed: Option<SpanId>,
    /// The type of an exception that has left them.
    raised: Option<String>,
    /// It ends the process.
    is_fatal: bool,
}

/// How long what was raised is taken to be on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// Until a call that it went through returns.
    UntilCaught,
    /// It ends the process.
    ToTheEnd,
}

/// What a hit has read, as attributes.
fn values(reader: &Reader, hit: &Hit<'_>) -> Attributes {
    let mut attributes = Attributes::default();
    for (key, value) in reader.read(hit.chunks) {
        match value {
            Value::Int(number) => attributes.int(&key, number),
            Value::Uint(number) => match i64::try_from(number) {
                Ok(number) => attributes.int(&key, number),
                // OTLP's integers have a sign.
                Err(_) => attributes.text(&key, &number.to_string()),
            },
            Value::Bool(truth) => attributes.bool(&key, truth),
            Value::Text(text) => attributes.text(&key, &redact::value(&key, &text)),
            Value::Unavailable(_) => attributes.text(&key, &value.to_string()),
        }
    }
    attributes
}

/// The request that `task` serves, and since when.
fn request(task: TaskId, state: &State) -> Option<(MonoNs, Belongs)> {
    let process = state.processes.get(&task.tgid)?;
    let served = |key: ExchangeKey| {
        let exchange = state.exchanges.get(key)?;
        let is_served =
            exchange.kind == Kind::Server && exchange.head_seen && exchange.end.is_none();
        is_served.then_some((key, exchange))
    };
    if let Some((key, exchange)) = state.tasks.current(task).and_then(served)
        && let Some((method, confidence)) = tasks::within(task, process, exchange.nonblocking)
    {
        return Some((exchange.start, Belongs::Request { key, method, confidence }));
    }
    if !tasks::is_event_loop(task, process) {
        return None;
    }
    // A call to somewhere else is made for the request that it belongs to.
    let mut key = state.tasks.touched(task)?;
    if let Some(Exchange {
        kind: Kind::Client, origin: Origin::Local { key: server, .. }, ..
    }) = state.exchanges.get(key)
    {
        key = *server;
    }
    let (key, exchange) = served(key)?;
    let (method, confidence) = (Method::Resume, Confidence::Inferred);
    Some((exchange.start, Belongs::Request { key, method, confidence }))
}
