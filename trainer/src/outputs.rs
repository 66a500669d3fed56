//! What a training leaves beside its weights: a history, curves for TensorBoard, a report and a model card for people, and
//! `results.json`. Rank 0 writes them.
//!
//! A file that cannot be written is told in a sentence, in the log and in `results.json`; the weights are good without it.
//! `results.json` itself is written last, and without it a job has no end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use datjob_api::report::{Accuracy, Progress, Timing};

use crate::checkpoint::{
    BEST_FILE, CheckpointError, LAST_FILE,
    results::{self, Document},
};
use datjob_data::files;

pub mod estimates;
#[cfg(test)]
mod example;
pub mod history;
pub mod model_card;
mod plot;
pub mod report;
pub mod robustbench;
pub mod tensorboard;

use history::History;

/// Everything that lies in a job's directory at its end, for the line that `dat-trainer run` ends with.
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

/// What rank 0 writes of a training.
#[derive(Debug)]
pub struct Outputs {
    directory: PathBuf,
    history: History,
    /// Files whose last writing failed, and why.
    problems: BTreeMap<&'static str, String>,
}

impl Outputs {
    /// Those of a training that goes on after `epoch`; 0 where it begins.
    pub fn resume(directory: &Path, training_hash: &str, epoch: u32) -> Self {
        let history = History::resume(directory, training_hash, epoch).unwrap_or_else(|error| {
            tracing::warn!(%error, "Cannot read the history of earlier epochs; starting a new one.");
            History::unknown(training_hash)
        });
        Self { directory: directory.to_owned(), history, problems: BTreeMap::new() }
    }

    /// Takes note of an epoch whose last step was just done.
    pub fn epoch(&mut self, progress: &Progress, timing: &Timing) {
        self.history.epoch(progress, timing);
    }

    /// Takes note of the accuracy after the newest epoch.
    pub fn accuracy(&mut self, accuracy: &Accuracy) {
        self.history.accuracy(accuracy);
    }

    /// What is known of the epochs.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Writes what is known so far. Before a checkpoint: there is never one whose epochs have no history.
    pub fn save(&mut self) {
        let written = self.history.write(&self.directory);
        self.note(history::FILE, written);
        let written = tensorboard::write(&self.directory, &self.history);
        self.note(tensorboard::DIRECTORY, written);
    }

    /// Writes everything about the end, the results last.
    pub fn finish(&mut self, mut document: Document) -> Result<(), CheckpointError> {
        self.save();
        let card = model_card::markdown(&document);
        self.note(model_card::FILE, self.write(model_card::FILE, &card));
        let card = robustbench::json(&document);
        self.note(robustbench::FILE, self.write(robustbench::FILE, &card));
        let report = report::html(&document, &self.history)
            .map_err(|error| format!("cannot create {}: {error}", report::FILE))
            .and_then(|report| self.write(report::FILE, &report).map_err(|error| error.to_string()));
        self.note(report::FILE, report);
        document.not_written = self.problems.values().cloned().collect();
        results::write(&self.directory, &document)
    }

    /// Takes note of how the writing of a file ended.
    pub fn note<E: ToString>(&mut self, file: &'static str, written: Result<(), E>) {
        match written {
            Ok(()) => {
                self.problems.remove(file);
            }
            Err(error) => {
                let sentence = error.to_string();
                tracing::warn!(file, error = sentence, "Cannot write an output file; continuing without it.");
                self.problems.insert(file, sentence);
            }
        }
    }

    fn write(&self, file: &str, content: &str) -> Result<(), files::FileError> {
        files::write_atomically(&self.directory.join(file), content.as_bytes())
    }
}
