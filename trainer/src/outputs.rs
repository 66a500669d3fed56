//! The output files of a training other than weights: the history, curves for TensorBoard, an HTML report, model cards and
//! `results.json`. Rank 0 writes them.
//!
//! A failed write is not fatal, as the weights are valid without the file. It is logged and recorded in `results.json`. That
//! file is written last: the job has succeeded when it exists, so failing to write it is an error.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use datjob_api::report::{Accuracy, Progress, Timing};

use crate::checkpoint::{
    BEST_FILE, CheckpointError, LAST_FILE,
    results::{self, Document},
};
use datjob_data::{files, storage};

pub mod estimates;
#[cfg(test)]
mod example;
pub mod history;
pub mod model_card;
mod plot;
pub mod report;
pub mod robustbench;
pub mod samples;
pub mod tensorboard;

use history::History;
use samples::EpochSamples;

/// The output files in the job's directory. `dat-trainer run` prints those that exist.
pub const FILES: [&str; 8] = [
    BEST_FILE,
    LAST_FILE,
    history::FILE,
    tensorboard::DIRECTORY,
    model_card::FILE,
    robustbench::FILE,
    report::FILE,
    results::FILE,
];

/// Writes the output files of a training.
#[derive(Debug)]
pub struct Outputs {
    directory: PathBuf,
    history: History,
    /// Files whose last write failed, with the error.
    write_errors: BTreeMap<&'static str, String>,
}

impl Outputs {
    /// Outputs of a training that resumes after `epoch` epochs; `has_begun` is whether it has made a step before.
    pub fn resume(directory: &Path, training_hash: &str, (epoch, has_begun): (u32, bool)) -> Self {
        let history = History::resume(directory, training_hash, (epoch, has_begun)).unwrap_or_else(|error| {
            tracing::warn!(%error, "Cannot read the history of earlier epochs; starting a new one.");
            History::with_unknown_start(training_hash)
        });
        Self { directory: directory.to_owned(), history, write_errors: BTreeMap::new() }
    }

    /// Records an epoch, right after its last step. `samples` is absent if its images were not counted.
    pub fn record_epoch(&mut self, progress: &Progress, timing: &Timing, samples: Option<EpochSamples>) {
        self.history.record_epoch(progress, timing, samples);
    }

    /// Records the accuracy after the newest epoch.
    pub fn record_accuracy(&mut self, accuracy: &Accuracy, duration: Duration) {
        self.history.record_accuracy(accuracy, duration);
    }

    /// The epochs so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Writes the history. Call it before a checkpoint is saved, so that the history has every epoch of the checkpoint.
    pub fn save_history(&mut self) {
        let result = self.history.write(&self.directory);
        self.record_write(history::FILE, result);
    }

    /// Writes the TensorBoard curves. Call it once the newest epoch is validated: an event is appended and never changes.
    pub fn save_curves(&mut self) {
        let result = tensorboard::write(&self.directory, &self.history);
        self.record_write(tensorboard::DIRECTORY, result);
    }

    /// Writes all output files of a finished training, `results.json` last.
    pub fn finish(&mut self, mut document: Document) -> Result<(), CheckpointError> {
        self.save_history();
        self.save_curves();
        let card = model_card::markdown(&document);
        self.record_write(model_card::FILE, self.write(model_card::FILE, &card));
        let card = robustbench::json(&document);
        self.record_write(robustbench::FILE, self.write(robustbench::FILE, &card));
        let report = report::html(&document, &self.history)
            .map_err(|error| format!("cannot create {}: {error}", report::FILE))
            .and_then(|report| self.write(report::FILE, &report).map_err(|error| error.to_string()));
        self.record_write(report::FILE, report);
        document.not_written = self.write_errors.values().cloned().collect();
        storage::retry(|| results::write(&self.directory, &document))
    }

    /// Records whether a file was written. An error is logged.
    pub fn record_write<E: ToString>(&mut self, file: &'static str, result: Result<(), E>) {
        match result {
            Ok(()) => {
                self.write_errors.remove(file);
            }
            Err(error) => {
                let message = error.to_string();
                tracing::warn!(file, error = message, "Cannot write an output file; continuing without it.");
                self.write_errors.insert(file, message);
            }
        }
    }

    fn write(&self, file: &str, content: &str) -> Result<(), files::FileError> {
        files::write_atomically(&self.directory.join(file), content.as_bytes())
    }
}
