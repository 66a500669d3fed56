//! `history.json`: what each epoch brought. It goes with the checkpoints: a job that goes on from one takes over the epochs
//! up to it, and those that came after, of which nothing else is left, are forgotten.

use std::path::Path;

use datjob_api::report::{Accuracy, Progress, Timing};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use datjob_data::files::{self, FileError};

/// The file's name.
pub const FILE: &str = "history.json";
/// Largest history that is read, in bytes: some kilobytes an epoch.
const MAX_BYTES: u64 = 256 << 20;

/// The epochs of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// SHA-256 of the training spec.
    pub training_hash: String,
    /// When the first epoch began; absent where epochs before the first one here were recorded by nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The epochs, in order.
    pub epochs: Vec<EpochRecord>,
}

/// What an epoch brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochRecord {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Optimizer steps since the start of training.
    pub step: u64,
    /// Mean training loss, on rank 0's share of the images.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Training images per second over all ranks, evaluation not counted.
    pub images_per_second: f64,
    /// When its last step was done.
    pub ended_at: Timestamp,
    /// Where its time went, on rank 0.
    pub timing: Timing,
    /// Seconds of the evaluation on the validation split; absent where there was none after this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seconds: Option<f64>,
    /// Accuracy on the validation split; absent where it was not measured after this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
}

/// A history that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error("{path} is invalid: {problem}; a new history starts after epoch {epoch}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
        /// The epoch of the checkpoint.
        epoch: u32,
    },
}

impl History {
    /// The history of a training that begins now.
    pub fn new(training_hash: &str) -> Self {
        let started_at = Some(Timestamp::now());
        Self { training_hash: training_hash.to_owned(), started_at, epochs: Vec::new() }
    }

    /// A history of which the beginning is not known.
    pub fn unknown(training_hash: &str) -> Self {
        Self { training_hash: training_hash.to_owned(), started_at: None, epochs: Vec::new() }
    }

    /// What is known of the epochs up to `epoch`, after which training goes on.
    pub fn resume(directory: &Path, training_hash: &str, epoch: u32) -> Result<Self, HistoryError> {
        if epoch == 0 {
            return Ok(Self::new(training_hash));
        }
        let path = directory.join(FILE);
        let damaged =
            |problem: String| HistoryError::Damaged { path: path.display().to_string(), problem, epoch };
        let Some(content) = files::read_if_exists(&path, MAX_BYTES)? else {
            // Checkpoints that are older than this file.
            return Ok(Self::unknown(training_hash));
        };
        let mut history: Self = serde_json::from_slice(&content).map_err(|e| damaged(e.to_string()))?;
        if history.training_hash != training_hash {
            return Err(damaged(format!("it belongs to the training spec {}", history.training_hash)));
        }
        history.epochs.retain(|record| record.epoch <= epoch);
        if !history.epochs.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err(damaged("its epochs are out of order".to_owned()));
        }
        Ok(history)
    }

    /// Takes note of an epoch whose last step was just done.
    pub fn epoch(&mut self, progress: &Progress, timing: &Timing) {
        let Progress { epoch, step, images_per_second, loss, learning_rate, .. } = *progress;
        self.epochs.push(EpochRecord {
            epoch,
            step,
            loss,
            learning_rate,
            images_per_second,
            ended_at: Timestamp::now(),
            timing: timing.clone(),
            validation_seconds: None,
            accuracy: None,
        });
    }

    /// Takes note of the accuracy after the newest epoch, which was just measured.
    pub fn accuracy(&mut self, accuracy: &Accuracy) {
        if let Some(record) = self.epochs.last_mut().filter(|record| record.epoch == accuracy.epoch) {
            let seconds = Timestamp::now().duration_since(record.ended_at).as_secs_f64();
            record.validation_seconds = Some((seconds.max(0.0) * 10.0).round() / 10.0);
            record.accuracy = Some(accuracy.clone());
        }
    }

    /// Writes it.
    pub fn write(&self, directory: &Path) -> Result<(), FileError> {
        let json = serde_json::to_vec_pretty(self);
        let json = json.unwrap_or_else(|error| unreachable!("plain data serializes: {error}"));
        files::write_atomically(&directory.join(FILE), &json)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use datjob_api::report::{AttackCount, BothWeights, Count, Split};

    use super::*;

    /// A history of so many epochs, always the same.
    pub(crate) fn history(epochs: u32) -> History {
        let mut history = History::unknown("hash");
        history.started_at = Some(Timestamp::constant(1_700_000_000, 0));
        for epoch in 1..=epochs {
            history.epoch(&progress(epoch), &timing());
            if epoch.is_multiple_of(2) {
                history.accuracy(&accuracy(epoch));
            }
            // Both were taken from the clock.
            let record = history.epochs.last_mut().unwrap();
            record.ended_at = Timestamp::constant(1_700_000_000 + i64::from(epoch), 500_000_000);
            record.validation_seconds = record.validation_seconds.map(|_| 3.0);
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

    fn accuracy(epoch: u32) -> Accuracy {
        let count = |correct| Count { correct, total: 1000 };
        let correct = u64::from(epoch) * 10;
        Accuracy {
            epoch,
            split: Split::Validation,
            clean: count(800),
            robust: AttackCount::new("pgd-10", count(correct)),
            averaging: Some(BothWeights {
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
    fn epochs_after_the_checkpoint_are_forgotten_and_none_is_there_twice() {
        let directory = tempfile::tempdir().unwrap();
        history(5).write(directory.path()).unwrap();
        let mut resumed = History::resume(directory.path(), "hash", 3).unwrap();
        assert_eq!(resumed, history(3));
        resumed.epoch(&progress(4), &timing());
        let epochs: Vec<u32> = resumed.epochs.iter().map(|record| record.epoch).collect();
        assert_eq!(epochs, [1, 2, 3, 4]);
        let anew = History::resume(directory.path(), "hash", 0).unwrap();
        assert!(anew.epochs.is_empty() && anew.started_at.is_some());
    }

    #[test]
    fn an_accuracy_belongs_to_its_epoch() {
        let mut history = history(1);
        history.accuracy(&accuracy(2));
        assert_eq!(history.epochs[0].accuracy, None);
    }

    #[test]
    fn what_cannot_be_taken_over_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let resume = || History::resume(directory.path(), "hash", 3);
        assert_eq!(resume().unwrap(), History::unknown("hash"));
        let mut twice = history(2);
        twice.epochs[1].epoch = 1;
        twice.write(directory.path()).unwrap();
        assert!(resume().unwrap_err().to_string().contains("history.json is invalid: its epochs are out"));
        let other = History { training_hash: "other".into(), ..history(2) };
        other.write(directory.path()).unwrap();
        assert!(resume().unwrap_err().to_string().contains("it belongs to the training spec other"));
        fs::write(directory.path().join(FILE), "{").unwrap();
        let sentence = resume().unwrap_err().to_string();
        assert!(sentence.ends_with("; a new history starts after epoch 3"), "{sentence}");
    }
}
