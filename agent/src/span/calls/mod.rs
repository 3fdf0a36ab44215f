//! Calls of probed functions: nests the hits of their probes into spans. Within one task a call lies
//! within the innermost open call on its stack, or within the request that the task serves, whichever
//! began later.
//!
//! Pure, as all of `span`. What a hit read is not looked into here: readers turn it into attributes.

mod ending;
mod event;
mod exception;
mod finish;
mod raises;
mod stack;
mod taken;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use agent_common::function::site_number::PLACE_MASK;

use super::attributes::Attributes;
use super::events::Events;
use super::exchange::{Exchange, ExchangeKey, Origin, Trace};
use super::model::{Confidence, Kind, Method, Resource, SpanId};
use super::sampler::Sampler;
use super::state::State;
use super::{redact, tasks};
use crate::event::Hit;
use crate::event::ids::{SiteNo, StackPointer, TaskId, Tgid};
use crate::function::facts::{FunctionFacts, Role};
use crate::function::future;
use crate::function::site::SiteKind;
use crate::function::value::{Failure, Reader, Value};
use crate::platform::clock::MonoNs;
use crate::stack::Taken;
use ending::Outward;
use stack::{Gone, Stacks};
use taken::Waiting;

/// Most calls that are open at one time, over all tasks; entries beyond are counted.
const OPEN_MAX: usize = 1 << 18;

/// From how many tasks on those in which nothing is open are looked for.
const TASKS: usize = 1 << 10;

/// Why a stack that was asked for is missing.
const STACK_LEFT_OUT: &str = "remora.stack.left_out";

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
    jumped: Option<Jump>,
    /// Its stack lies close to others of its task, and may be another one than it was taken for.
    close: bool,
    /// It makes no span; what lies within it lies within what it lies within.
    silent: bool,
    /// A span that was or will be handed out names it as its parent.
    needed: bool,
}

/// Another function runs in a call's place.
struct Jump {
    at: MonoNs,
    /// Which one.
    into: u32,
    /// It was seen to be entered: they end together.
    is_entered: bool,
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
    /// Processes that have stacks close to each other.
    close: HashSet<Tgid>,
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
            SiteKind::TailCall => self.tail_call(hit, (&function, reader), site.into, state),
            // What was read there are arguments.
            SiteKind::EntryAndReturn => {
                self.entry(hit, (&function, reader), stack.as_deref(), state, sampler);
                self.returned(hit, (&function, None), state);
            }
            SiteKind::EntryAndTailCall => {
                self.entry(hit, (&function, reader), stack.as_deref(), state, sampler);
                self.tail_call(hit, (&function, None), site.into, state);
            }
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
        let close = stacks.close;
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
        if let Some(why) = hit.stack_left_out {
            attributes.text(STACK_LEFT_OUT, why.as_str());
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
            close,
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
        let stacks = self.tasks.entry(hit.task).or_default();
        stacks.close |= self.close.contains(&hit.tgid);
        stacks
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
        let returned = stacks.returned(hit.sp, hit.at, function, &mut gone);
        if stacks.close && !self.close.contains(&hit.tgid) {
            self.close.insert(hit.tgid);
        }
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

    fn tail_call(
        &mut self,
        hit: &Hit<'_>,
        (function, reader): (&Arc<Function>, Option<&Reader>),
        into: Option<u32>,
        state: &mut State,
    ) {
        match into {
            Some(into) => self.jump(hit, function, into),
            None => self.returned(hit, (function, reader), state),
        }
    }

    fn jump(&mut self, hit: &Hit<'_>, function: &Arc<Function>, into: u32) {
        let top = self.tasks.get_mut(&hit.task).and_then(Stacks::innermost);
        match top.filter(|top| top.sp == hit.sp && Arc::ptr_eq(&top.function, function)) {
            Some(frame) => frame.jumped = Some(Jump { at: hit.at, into, is_entered: false }),
            None => self.tallies.unentered += 1,
        }
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
