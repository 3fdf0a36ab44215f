//! The threads behind destinations: one for all that are reached over the network, one for each
//! that can block in a write.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::ExportError;
use super::console::Console;
use super::file::Lines;
use super::queue::{Batch, Loss, Queue};
use super::remote::Remote;

/// Starts the thread of all network destinations.
pub(super) fn remote(
    remotes: Vec<Remote>,
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
            tasks.spawn_local(remote.run());
        }
        runtime.block_on(tasks);
        drop(alive);
    })
}

/// Starts the thread of a destination that takes JSON lines.
pub(super) fn lines(
    name: String,
    queue: Arc<Queue>,
    mut lines: Lines,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    spawn("remora-lines", move || {
        let mut failing = false;
        while let Some(batches) = queue.take_blocking(None) {
            // A line for each batch, so that a replay writes the very lines that its run wrote.
            for batch in batches.chunks(1) {
                settle(&name, &queue, batch, lines.write(batch), &mut failing);
            }
        }
        drop(alive);
    })
}

/// Starts the console's thread.
pub(super) fn console(
    name: String,
    queue: Arc<Queue>,
    mut console: Console,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>, ExportError> {
    spawn("remora-console", move || {
        let mut failing = false;
        loop {
            let rest =
                console.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let Some(batches) = queue.take_blocking(rest) else { break };
            let mut result = Ok(());
            for batch in &batches {
                result = result.and(console.accept(batch, Instant::now()));
            }
            result = result.and(console.tick(Instant::now()));
            settle(&name, &queue, &batches, result, &mut failing);
        }
        if let Err(error) = console.finish()
            && !failing
        {
            tracing::warn!(destination = %name, %error, "cannot write the last traces");
        }
        drop(alive);
    })
}

fn settle(
    name: &str,
    queue: &Queue,
    batches: &[Batch],
    result: io::Result<()>,
    failing: &mut bool,
) {
    let spans = batches.iter().map(|batch| batch.len() as u64).sum();
    match result {
        Ok(()) => {
            queue.settle(spans, 0, Loss::Io);
            if std::mem::take(failing) {
                tracing::info!(destination = %name, "writable again");
            }
        }
        Err(error) => {
            queue.settle(0, spans, Loss::Io);
            if !std::mem::replace(failing, true) {
                tracing::warn!(destination = %name, %error, "cannot write: spans are dropped");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ExportError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(ExportError::Thread)
}
