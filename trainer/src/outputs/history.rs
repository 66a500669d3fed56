//! `history.json`: the metrics of each epoch. The history belongs to the checkpoints: a job that resumes from one keeps the
//! epochs up to it and drops the later ones, which are trained again.

use std::{path::Path, time::Duration};

use datjob_api::report::{Accuracy, Progress, Timing};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::samples::EpochSamples;
use datjob_data::{
    files::{self, FileError},
    storage,
};

/// The file's name.
pub const FILE: &str = "history.json";
/// Limit on the size of a history file, in bytes. An epoch takes a few kilobytes.
const MAX_BYTES: u64 = 256 << 20;

/// The epochs of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// SHA-256 of the training spec.
    pub training_hash: String,
    /// Start of the first epoch. Absent if earlier epochs were not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The epochs, in ascending order.
    pub epochs: Vec<EpochRecord>,
}

/// The metrics of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochRecord {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Optimizer steps since the start of training.
    pub step: u64,
    /// Mean training loss over the images of rank 0.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Training images per second over all ranks, excluding evaluations.
    pub images_per_second: f64,
    /// End of its last step.
    pub ended_at: Timestamp,
    /// Breakdown of its time, on rank 0.
    pub timing: Timing,
    /// The images that it trained on. Absent if older trainers trained it, or a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<EpochSamples>,
    /// Duration of the evaluation on the validation split, in seconds. Absent if this epoch had no evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seconds: Option<f64>,
    /// Accuracy on the validation split. Absent if it was not measured after this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
}

/// Why a history cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The content is invalid.
    #[error("{path} is invalid: {problem}; a new history starts after epoch {epoch}")]
    Invalid {
        /// Path of the file.
        path: String,
        /// What is invalid.
        problem: String,
        /// Epoch of the checkpoint.
        epoch: u32,
    },
}

impl History {
    /// The history of a training that starts now.
    pub fn new(training_hash: &str) -> Self {
        let started_at = Some(Timestamp::now());
        Self { training_hash: training_hash.to_owned(), started_at, epochs: Vec::new() }
    }

    /// An empty history of a training whose earlier epochs are unknown.
    pub fn with_unknown_start(training_hash: &str) -> Self {
        Self { training_hash: training_hash.to_owned(), started_at: None, epochs: Vec::new() }
    }

    /// Reads the history of the epochs up to `epoch`, after which training resumes. `has_begun` is whether the training has made
    /// a step before.
    pub fn resume(
        directory: &Path,
        training_hash: &str,
        (epoch, has_begun): (u32, bool),
    ) -> Result<Self, HistoryError> {
        if !has_begun {
            return Ok(Self::new(training_hash));
        }
        let path = directory.join(FILE);
        let invalid =
            |problem: String| HistoryError::Invalid { path: path.display().to_string(), problem, epoch };
        let Some(content) = storage::read_if_exists(&path, MAX_BYTES)? else {
            // The checkpoints are from an older trainer, which wrote no history.
            return Ok(Self::with_unknown_start(training_hash));
        };
        let mut history: Self = serde_json::from_slice(&content).map_err(|e| invalid(e.to_string()))?;
        if history.training_hash != training_hash {
            return Err(invalid(format!("it belongs to the training spec {}", history.training_hash)));
        }
        history.epochs.retain(|record| record.epoch <= epoch);
        if !history.epochs.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err(invalid("its epochs are out of order".to_owned()));
        }
        Ok(history)
    }

    /// Records an epoch, right after its last step. `samples` is absent if its images were not counted.
    pub fn record_epoch(&mut self, progress: &Progress, timing: &Timing, samples: Option<EpochSamples>) {
        let Progress { epoch, step, images_per_second, loss, learning_rate, .. } = *progress;
        self.epochs.push(EpochRecord {
            epoch,
            step,
            loss,
            learning_rate,
            images_per_second,
            ended_at: Timestamp::now(),
            timing: timing.clone(),
            samples,
            validation_seconds: None,
            accuracy: None,
        });
    }

    /// Records the accuracy after the newest epoch, and how long the evaluation took.
    pub fn record_accuracy(&mut self, accuracy: &Accuracy, duration: Duration) {
        if let Some(record) = self.epochs.last_mut().filter(|record| record.epoch == accuracy.epoch) {
            record.validation_seconds = Some(round_to_milliseconds(duration.as_secs_f64()));
            record.accuracy = Some(accuracy.clone());
        }
    }

    /// The progress after an epoch that was recorded, of `epochs`.
    pub fn progress(&self, epoch: u32, epochs: u32) -> Option<Progress> {
        let record = self.epochs.iter().find(|record| record.epoch == epoch)?;
        Some(Progress {
            epoch,
            epochs,
            step: record.step,
            percent: 100 * epoch / epochs.max(1),
            images_per_second: record.images_per_second,
            remaining_seconds: (f64::from(epochs.saturating_sub(epoch)) * record.timing.epoch_seconds) as u64,
            loss: record.loss,
            learning_rate: record.learning_rate,
        })
    }

    /// The accuracy after an epoch that was recorded.
    pub fn accuracy(&self, epoch: u32) -> Option<&Accuracy> {
        self.epochs.iter().find(|record| record.epoch == epoch)?.accuracy.as_ref()
    }

    /// Writes `history.json`.
    pub fn write(&self, directory: &Path) -> Result<(), FileError> {
        let json = serde_json::to_vec_pretty(self);
        let json = json.unwrap_or_else(|error| unreachable!("plain data serializes: {error}"));
        files::write_atomically(&directory.join(FILE), &json)
    }
}

/// Rounds seconds to milliseconds. Times are rounded no further before they are added up.
pub(crate) fn round_to_milliseconds(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use datjob_api::report::{AttackCount, Count, RawAndAveraged, Split};

    use super::*;

    /// A deterministic history with `epochs` epochs.
    pub(crate) fn history(epochs: u32) -> History {
        let mut history = History::with_unknown_start("hash");
        history.started_at = Some(Timestamp::constant(1_700_000_000, 0));
        for epoch in 1..=epochs {
            history.record_epoch(&progress(epoch), &timing(), Some(samples()));
            if epoch.is_multiple_of(2) {
                history.record_accuracy(&accuracy(epoch), Duration::from_secs(3));
            }
            // Replace the value that comes from the clock.
            let record = history.epochs.last_mut().unwrap();
            record.ended_at = Timestamp::constant(1_700_000_000 + i64::from(epoch), 500_000_000);
        }
        history
    }

    fn progress(epoch: u32) -> Progress {
        Progress {
            epoch,
            epochs: 100,
            step: u64::from(epoch) * 10,
            percent: epoch,
            images_per_second: 1000.0,
            remaining_seconds: 0,
            loss: 2.0 / f64::from(epoch),
            learning_rate: 0.1,
        }
    }

    fn timing() -> Timing {
        Timing {
            epoch_seconds: 10.0,
            attack_seconds: 7.0,
            communication_seconds: 0.5,
            bytes_per_step: 1000,
            data_seconds: 0.1,
            peak_gpu_memory_bytes: None,
        }
    }

    fn samples() -> EpochSamples {
        EpochSamples { images: 5000, distinct_images: 5000, ..EpochSamples::default() }
    }

    fn accuracy(epoch: u32) -> Accuracy {
        let count = |correct| Count { correct, total: 1000 };
        let correct = u64::from(epoch) * 10;
        Accuracy {
            epoch,
            split: Split::Validation,
            clean: count(800),
            robust: AttackCount::new("pgd-10", count(correct)),
            averaging: Some(RawAndAveraged {
                raw_clean: count(790),
                raw_robust: count(correct - 5),
                averaged_clean: count(800),
                averaged_robust: count(correct),
            }),
            single_step: None,
            overfitting: None,
        }
    }

    #[test]
    fn drops_epochs_after_the_checkpoint_and_keeps_each_epoch_once() {
        let directory = tempfile::tempdir().unwrap();
        history(5).write(directory.path()).unwrap();
        let mut resumed = History::resume(directory.path(), "hash", (3, true)).unwrap();
        assert_eq!(resumed, history(3));
        resumed.record_epoch(&progress(4), &timing(), None);
        let epochs: Vec<u32> = resumed.epochs.iter().map(|record| record.epoch).collect();
        assert_eq!(epochs, [1, 2, 3, 4]);
        let within_first_epoch = History::resume(directory.path(), "hash", (0, true)).unwrap();
        assert_eq!((within_first_epoch.started_at, within_first_epoch.epochs.len()), (resumed.started_at, 0));
        let new = History::resume(directory.path(), "hash", (0, false)).unwrap();
        assert!(new.epochs.is_empty() && new.started_at.is_some());
    }

    #[test]
    fn ignores_the_accuracy_of_another_epoch() {
        let mut history = history(1);
        history.record_accuracy(&accuracy(2), Duration::ZERO);
        assert_eq!(history.epochs[0].accuracy, None);
    }

    #[test]
    fn rejects_an_invalid_history() {
        let directory = tempfile::tempdir().unwrap();
        let resume = || History::resume(directory.path(), "hash", (3, true));
        assert_eq!(resume().unwrap(), History::with_unknown_start("hash"));
        let mut duplicate = history(2);
        duplicate.epochs[1].epoch = 1;
        duplicate.write(directory.path()).unwrap();
        assert!(resume().unwrap_err().to_string().contains("history.json is invalid: its epochs are out"));
        let other = History { training_hash: "other".into(), ..history(2) };
        other.write(directory.path()).unwrap();
        assert!(resume().unwrap_err().to_string().contains("it belongs to the training spec other"));
        fs::write(directory.path().join(FILE), "{").unwrap();
        let message = resume().unwrap_err().to_string();
        assert!(message.ends_with("; a new history starts after epoch 3"), "{message}");
    }
}
