//! The last line: what became of everything, by reason.

use std::fmt;

use agent_common::counter;

use crate::export::{Account, Loss};
use crate::pipeline::Intake;
use crate::probe::Counters;
use crate::probe::function::InUse;
use crate::span::calls::CallTallies;
use crate::span::tracker::Tallies;

/// What a run did and lost.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Records taken in.
    pub intake: Intake,
    /// The tracker's counts.
    pub tallies: Tallies,
    /// What was counted of functions' calls.
    pub calls: CallTallies,
    /// What the probes of functions have cost their targets, by what a hit costs here.
    pub probes_ns: u64,
    /// Functions that are probed.
    pub functions: usize,
    /// Places where exceptions are watched.
    pub hooks: usize,
    /// Functions that were detached because they cost their targets too much.
    pub detached: u64,
    /// Numbers of functions that are in use, and those of their sites and links.
    pub numbers: (u32, InUse),
    /// Stacks that were told before all that they need was read.
    pub stacks_unread: u64,
    /// Stacks that waited no longer because there was no room for what would have waited behind them.
    pub stacks_hurried: u64,
    /// Records that wait behind a stack.
    pub held: usize,
    /// The kernel half's counts.
    pub counters: Counters,
    /// Failures of the recording.
    pub unrecorded: u64,
    /// Processes that were traced.
    pub processes: u64,
    /// Processes that are traced now, and those that the kernel half remembers: also the ones that
    /// were looked at and are not wanted.
    pub alive: (usize, usize),
    /// Sockets and exchanges that are remembered.
    pub sizes: (usize, usize),
    /// Destinations, and what became of the spans there.
    pub accounts: Vec<(String, Account)>,
}

impl Summary {
    /// Spans that every destination has.
    pub fn exported(&self) -> u64 {
        self.accounts.iter().map(|(_, account)| account.sent).min().unwrap_or(0)
    }

    /// Spans that were made.
    pub fn spans(&self) -> u64 {
        self.tallies.spans + self.calls.spans
    }

    /// Losses by reason, of events and of spans; only those that happened.
    pub fn losses(&self) -> Vec<(String, u64)> {
        let count = |index: u32| self.counters.of(index);
        let mut losses = vec![
            ("events.ring_full".to_owned(), count(counter::RING_FULL)),
            ("events.no_storage".to_owned(), count(counter::NO_STORAGE)),
            ("events.no_selection".to_owned(), count(counter::NO_SELECTION)),
            ("events.malformed".to_owned(), self.intake.malformed),
            ("sockets.too_many".to_owned(), self.tallies.too_many_sockets),
            ("exchanges.too_many".to_owned(), self.tallies.too_many_exchanges),
            ("exchanges.untold".to_owned(), self.tallies.untold),
            ("exchanges.headless".to_owned(), self.tallies.headless),
            ("calls.too_many".to_owned(), self.calls.too_many),
            ("calls.events_too_many".to_owned(), self.calls.too_many_events),
            ("recording.failed".to_owned(), self.unrecorded),
        ];
        for (name, account) in &self.accounts {
            // `otlp http://…` is called by its first word here.
            let kind = name.split(' ').next().unwrap_or_default();
            for (loss, lost) in Loss::ALL.iter().zip(account.lost) {
                let reason = format!("{kind}.{}", loss.as_str());
                // Two destinations of one kind share their reasons.
                match losses.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, sum)) => *sum += lost,
                    None => losses.push((reason, lost)),
                }
            }
        }
        losses.retain(|(_, lost)| *lost > 0);
        losses
    }

    /// Everything that was counted, under the names of the metrics.
    pub fn metrics(&self) -> Vec<(&'static str, u64)> {
        let count = |index: u32| self.counters.of(index);
        vec![
            ("remora_processes_traced_total", self.processes),
            ("remora_kernel_events_total", self.counters.events),
            ("remora_events_total", self.intake.events),
            ("remora_events_missing_total", self.intake.missing),
            ("remora_unreadable_payloads_total", count(counter::UNREADABLE)),
            ("remora_stacks_left_out_total", count(counter::NO_IMAGE)),
            ("remora_stacks_suppressed_total", count(counter::NO_IMAGE_BUDGET)),
            ("remora_stacks_unread_total", self.stacks_unread),
            ("remora_stacks_hurried_total", self.stacks_hurried),
            ("remora_records_held", self.held as u64),
            ("remora_io_uring_operations_total", count(counter::IO_URING)),
            ("remora_io_uring_calls_unseen_total", count(counter::IO_URING_UNSEEN)),
            ("remora_compat_operations_total", count(counter::COMPAT)),
            ("remora_requests_unfinished_total", self.tallies.unfinished),
            ("remora_stream_gaps_total", self.tallies.gaps),
            ("remora_unknown_traffic_bytes_total", self.tallies.unknown_bytes),
            ("remora_events_of_unknown_socket_total", self.tallies.unknown_socket),
            ("remora_events_of_unknown_process_total", self.tallies.unknown_process),
            (
                "remora_nginx_calls_unproved_total",
                count(counter::NGINX_UNPROVED) + self.tallies.nginx_unplaced,
            ),
            ("remora_go_calls_unproved_total", count(counter::GO_UNPROVED)),
            ("remora_parents_disputed_total", self.tallies.disputed),
            ("remora_spans_unsampled_total", self.tallies.unsampled),
            ("remora_spans_total", self.spans()),
            ("remora_call_spans_total", self.calls.spans),
            ("remora_calls_suppressed_total", self.calls.suppressed),
            ("remora_calls_left_out_total", self.calls.left_out),
            ("remora_calls_inferred_total", self.calls.inferred),
            ("remora_calls_unentered_total", self.calls.unentered),
            ("remora_calls_unsampled_total", self.calls.unsampled),
            ("remora_function_hits_lost_total", self.calls.lost),
            ("remora_function_hits_unknown_total", self.calls.unknown),
            ("remora_exceptions_outside_spans_total", self.calls.homeless),
            ("remora_exceptions_control_flow_total", self.calls.control_flow),
            ("remora_function_probes_cpu_ns_total", self.probes_ns),
            ("remora_functions_probed", self.functions as u64),
            ("remora_exception_hooks", self.hooks as u64),
            ("remora_functions_detached_total", self.detached),
            ("remora_function_numbers", self.numbers.0.into()),
            ("remora_function_sites", self.numbers.1.sites.into()),
            ("remora_function_links", self.numbers.1.links.into()),
            ("remora_processes", self.alive.0 as u64),
            ("remora_selected_processes", self.alive.1 as u64),
            ("remora_sockets", self.sizes.0 as u64),
            ("remora_open_exchanges", self.sizes.1 as u64),
        ]
    }
}

impl fmt::Display for Summary {
    /// The line's end: `spans=N exported=N lost=N`, then each loss by its reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let losses = self.losses();
        let lost: u64 = losses.iter().map(|(_, lost)| lost).sum();
        write!(f, "spans={} exported={} lost={lost}", self.spans(), self.exported())?;
        losses.iter().try_for_each(|(reason, lost)| write!(f, " {reason}={lost}"))
    }
}
