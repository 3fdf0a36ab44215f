//! The pipeline of a live capture, and the recording of what it is told. A disk that fails ends the recording,
//! not the tracing.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::RunError;
use crate::event::{DecodeError, Event, Position};
use crate::export::Exporters;
use crate::pipeline::recording::Recorder;
use crate::pipeline::{Pipeline, Step};
use crate::span::model::Span;

/// The pipeline, what it is told, and what it makes of that.
pub(super) struct Recorded {
    pub(super) recording: Recording,
    pub(super) pipeline: Pipeline,
    /// What no exporter has yet.
    pub(super) spans: Vec<Span>,
}

impl Recorded {
    pub(super) fn step(&mut self, step: &Step<'_>) {
        self.recording.write(step);
        self.pipeline.step(step, &mut self.spans);
    }

    /// Gives what is over to the exporters.
    pub(super) fn hand_on(&mut self, exporters: &Exporters) {
        exporters.put(&mut self.spans);
        self.pipeline.reuse(&mut self.spans);
    }

    /// As [`Step::Record`], of which it is known what it says.
    pub(super) fn record(
        &mut self,
        record: &[u8],
        decoded: &Result<(Position, Event<'_>), DecodeError>,
    ) {
        self.recording.write(&Step::Record(record));
        self.pipeline.record(decoded);
    }
}

/// A recording, or none.
pub(super) struct Recording {
    recorder: Option<Recorder<BufWriter<File>>>,
    failures: u64,
}

impl Recording {
    /// Creates the file; it holds raw traffic, so only its owner may read it.
    pub(super) fn create(path: Option<PathBuf>, seed: u64) -> Result<Self, RunError> {
        let recorder = match path {
            None => None,
            Some(path) => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                let file = options.open(&path);
                let recorder = file.and_then(|file| Recorder::new(BufWriter::new(file), seed));
                Some(recorder.map_err(|source| RunError::Record { path, source })?)
            }
        };
        Ok(Self { recorder, failures: 0 })
    }

    pub(super) fn write(&mut self, step: &Step<'_>) {
        let Some(recorder) = &mut self.recorder else { return };
        if let Err(error) = recorder.write(step) {
            self.fail(&error);
        }
    }

    pub(super) fn flush(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        if let Err(error) = recorder.flush() {
            self.fail(&error);
        }
    }

    /// Steps that are missing in the file make its rest worthless, so it ends here.
    fn fail(&mut self, error: &std::io::Error) {
        tracing::error!(%error, "cannot write the recording: it ends here");
        self.recorder = None;
        self.failures += 1;
    }

    /// Whether and how often writing failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }
}
