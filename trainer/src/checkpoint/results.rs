//! `results.json`: the end of a job. Once it is there, the job has succeeded, whatever happens to its pods. It holds the
//! results as the report has them, and beside them what only the file is long enough for.

use std::{path::Path, time::Duration};

use datjob_api::{Training, report::Results, training::Contents};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::CheckpointError;
use crate::outputs::{
    estimates::{AccuracyEstimate, CONFIDENCE, METHOD, TestSummary},
    history::{EpochRecord, History, round_to_milliseconds},
};
use datjob_data::{files, weights::WeightsCard};

/// Largest file that is read: a number a line for each class and attack.
const MAX_BYTES: u64 = 256 << 20;

/// The file's name.
pub const FILE: &str = "results.json";

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// UID of the job; on a workstation its name.
    pub job_uid: String,
    /// The results, as the report has them.
    pub results: Results,
    /// Every accuracy in them, with its confidence interval.
    pub accuracies: Accuracies,
    /// The weights after the last epoch; absent where they could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastWeights>,
    /// The data set, and the images of it that were held out for validation.
    pub trained_on: WeightsCard,
    /// When, and for how long.
    pub time: Time,
    /// The whole training spec.
    pub training: Training,
    /// What its data set holds.
    pub contents: Contents,
    /// Files that could not be written, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_written: Vec<String>,
}

/// Accuracies on the test set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accuracies {
    /// How the intervals were made.
    pub interval_method: &'static str,
    /// The probability that an interval covers, at least.
    pub confidence: f64,
    /// The accuracies.
    pub figures: Vec<AccuracyEstimate>,
}

impl From<&Results> for Accuracies {
    fn from(results: &Results) -> Self {
        let figures = TestSummary::from(results).estimates();
        Self { interval_method: METHOD, confidence: CONFIDENCE, figures }
    }
}

/// The weights after the last epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastWeights {
    /// The last epoch.
    pub epoch: u32,
    /// Whether they are averaged: they are where the spec averages.
    pub averaged: bool,
    /// Path below the checkpoint volume.
    pub weights: String,
    /// SHA-256 of that file.
    pub sha256: String,
}

/// When a job ran and where its time went. Sums are over the epochs of `history.json`: time that was lost with a world is
/// in none of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Time {
    /// When the first epoch began; absent where a trainer began that did not record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When this was written.
    pub finished_at: Timestamp,
    /// Epochs in the sums.
    pub epochs: usize,
    /// Seconds of training, evaluation not counted.
    pub training_seconds: f64,
    /// The mean over epochs.
    pub seconds_per_epoch: f64,
    /// Seconds of training in which adversarial examples were made.
    pub attack_seconds: f64,
    /// Seconds of training in communication that nothing else hid.
    pub communication_seconds: f64,
    /// Bytes that rank 0 sent in a step for gradients or weights, the mean over epochs.
    pub bytes_per_step: u64,
    /// Seconds of evaluations on the validation split.
    pub validation_seconds: f64,
    /// Seconds of the evaluation on the test set.
    pub test_seconds: f64,
    /// The most memory of its GPU that rank 0's tensors have held, in bytes; absent on a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_gpu_memory_bytes: Option<u64>,
}

impl Time {
    /// Of a training with that history, which ends now after an evaluation on the test set. `peak_gpu_memory_bytes` is the most
    /// memory that the tensors of this process have held.
    pub fn of(history: &History, test: Duration, peak_gpu_memory_bytes: Option<u64>) -> Self {
        let records = &history.epochs;
        let sum =
            |seconds: &dyn Fn(&EpochRecord) -> f64| round_to_milliseconds(records.iter().map(seconds).sum());
        let training_seconds = sum(&|record| record.timing.epoch_seconds);
        Self {
            started_at: history.started_at,
            finished_at: Timestamp::now(),
            epochs: records.len(),
            training_seconds,
            seconds_per_epoch: round_to_milliseconds(training_seconds / records.len().max(1) as f64),
            attack_seconds: sum(&|record| record.timing.attack_seconds),
            communication_seconds: sum(&|record| record.timing.communication_seconds),
            bytes_per_step: records.iter().map(|record| record.timing.bytes_per_step).sum::<u64>()
                / records.len().max(1) as u64,
            validation_seconds: sum(&|record| record.validation_seconds.unwrap_or(0.0)),
            test_seconds: round_to_milliseconds(test.as_secs_f64()),
            peak_gpu_memory_bytes: records
                .iter()
                .filter_map(|record| record.timing.peak_gpu_memory_bytes)
                .chain(peak_gpu_memory_bytes)
                .max(),
        }
    }
}

/// What is read again: the rest may be of another release.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// UID of the job; on a workstation its name.
    pub job_uid: String,
    /// The results, as the report has them.
    pub results: Results,
    /// Files that could not be written, a sentence each.
    #[serde(default)]
    pub not_written: Vec<String>,
    /// [`Document::last`] of any release.
    #[serde(default)]
    last: serde_json::Value,
}

impl Ending {
    /// SHA-256 of the weights after the last epoch; absent where they could not be written.
    pub fn last_sha256(&self) -> Option<&str> {
        self.last["sha256"].as_str()
    }
}

/// Writes the results; durable on return.
pub fn write(directory: &Path, document: &Document) -> Result<(), CheckpointError> {
    let path = directory.join(FILE);
    let json = serde_json::to_vec_pretty(document)
        .map_err(|error| CheckpointError::Manifest { path: path.clone(), problem: error.to_string() })?;
    Ok(files::write_atomically(&path, &json)?)
}

/// The results of this very job and training, if it has succeeded.
pub fn read(
    directory: &Path,
    job_uid: &str,
    training_hash: &str,
) -> Result<Option<Results>, CheckpointError> {
    let path = directory.join(FILE);
    let Some(ending) = ending(directory)? else { return Ok(None) };
    if ending.job_uid != job_uid {
        return Err(CheckpointError::Manifest {
            path,
            problem: format!("it belongs to job {}", ending.job_uid),
        });
    }
    if ending.results.training_hash != training_hash {
        let (expected, found) = (training_hash.to_owned(), ending.results.training_hash);
        return Err(CheckpointError::OtherTraining { path, expected, found });
    }
    Ok(Some(ending.results))
}

/// Which files could not be written beside the results, a sentence each.
pub fn not_written(directory: &Path) -> Result<Vec<String>, CheckpointError> {
    Ok(ending(directory)?.map(|ending| ending.not_written).unwrap_or_default())
}

/// The results in a directory, of whatever job and training.
pub(super) fn ending(directory: &Path) -> Result<Option<Ending>, CheckpointError> {
    let path = directory.join(FILE);
    let Some(content) = files::read_if_exists(&path, MAX_BYTES)? else { return Ok(None) };
    let ending = serde_json::from_slice(&content)
        .map_err(|error| CheckpointError::Manifest { path, problem: error.to_string() })?;
    Ok(Some(ending))
}
