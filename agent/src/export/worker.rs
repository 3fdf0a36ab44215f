//! The threads behind destinations: one for all that are reached over the network, one for each
//! that can block in a write.

use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::ExportError;
use super::console::{Console, Drawn};
use super::file::Lines;
use super::queue::{Batch, Loss, Queue};
use super::remote::Work;

/// Starts the thread of all network destinations.
pub(super) fn remote(
    remotes: Vec<Work>,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(ExportError::Thread)?;
    spawn("remora-export", move || {
        let tasks = tokio::task::LocalSet::new();
        for remote in remotes {
            remote(&tasks);
        }
        runtime.block_on(tasks);
        drop(alive);
    })
}

/// Starts the thread of a destination that takes JSON lines.
pub(super) fn lines(
    name: String,
    queue: Arc<Queue<Batch>>,
    mut lines: Lines,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    spawn("remora-lines", move || {
        let mut failing = false;
        while let Some(batches) = queue.take_blocking(None) {
            // A line for each batch, so that a replay writes the very lines that its run wrote.
            for batch in batches.chunks(1) {
                let spans = batch.iter().map(|batch| batch.len() as u64).sum();
                let drawn = match lines.write(batch) {
                    Ok(()) => Drawn { written: spans, ..Drawn::default() },
                    Err(error) => Drawn { lost: spans, error: Some(error), written: 0 },
                };
                settle(&name, &queue, drawn, &mut failing);
            }
        }
        drop(alive);
    })
}

/// Starts the console's thread.
pub(super) fn console(
    name: String,
    queue: Arc<Queue<Batch>>,
    mut console: Console,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    spawn("remora-console", move || {
        let mut failing = false;
        loop {
            let rest =
                console.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let Some(batches) = queue.take_blocking(rest) else { break };
            for batch in &batches {
                console.accept(batch, Instant::now());
            }
            console.tick(Instant::now());
            settle(&name, &queue, console.drawn(), &mut failing);
        }
        console.finish();
        settle(&name, &queue, console.drawn(), &mut failing);
        drop(alive);
    })
}

/// Says what has become of spans, and of a row of failures the first.
fn settle(name: &str, queue: &Queue<Batch>, drawn: Drawn, failing: &mut bool) {
    let Drawn { written, lost, error } = drawn;
    queue.settle(written, lost, Loss::Io);
    match error {
        Some(error) if !std::mem::replace(failing, true) => {
            tracing::warn!(destination = %name, %error, "cannot write: spans are dropped");
        }
        None if written > 0 && std::mem::take(failing) => {
            tracing::info!(destination = %name, "writable again");
        }
        _ => {}
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ExportError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(ExportError::Thread)
}
