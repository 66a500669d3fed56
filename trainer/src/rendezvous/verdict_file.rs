//! The final failure of a job, on the checkpoint volume before any pod or the operator acts on it.
//!
//! Each attempt has a separate file, which is created exclusively: the first failure counts. Valid results win over it, because
//! a job with results has succeeded.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use datjob_api::report::Failure;
use datjob_data::{
    files::{self, FileError},
    storage,
};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointError, results};

/// Most bytes of the file. A failure fits in a heartbeat of 64 KiB.
const MAX_BYTES: u64 = 256 * 1024;

/// Makes the final failure of an attempt durable before any pod receives it.
pub trait RecordFailure: fmt::Debug + Send + Sync {
    /// Records a failure. Blocks for as long as the volume does.
    fn record(&self, failure: &Failure) -> Result<Recorded, VerdictError>;
}

/// The outcome of an attempt on the volume after a failure was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The attempt failed with the first recorded failure, which may be an earlier one.
    Failure(Failure),
    /// The job has valid results. No failure was recorded.
    ResultsExist,
}

/// The recorded failure is unknown, or cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The file with the failure.
    #[error(transparent)]
    File(#[from] FileError),
    /// The results.
    #[error(transparent)]
    Results(#[from] CheckpointError),
    /// The failure cannot be encoded.
    #[error("cannot encode the failure for {}: {error}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: serde_json::Error,
    },
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    job_uid: String,
    attempt: u32,
    failure: Failure,
}

/// The file with the final failure of one attempt.
#[derive(Clone, Debug)]
pub struct VerdictFile {
    directory: PathBuf,
    job_uid: String,
    attempt: u32,
    training_hash: Option<String>,
}

impl VerdictFile {
    /// The file of an attempt in a job's checkpoint directory. Results with this hash of the training spec are valid; without a
    /// hash, none are.
    pub fn new(directory: &Path, job_uid: &str, attempt: u32, training_hash: Option<String>) -> Self {
        Self { directory: directory.to_owned(), job_uid: job_uid.to_owned(), attempt, training_hash }
    }

    /// The recorded failure, unless the job has valid results. Waits until the volume can be read.
    pub fn read(&self) -> Result<Option<Failure>, VerdictError> {
        storage::retry(|| -> Result<Option<Failure>, VerdictError> {
            let Some(failure) = self.recorded()? else { return Ok(None) };
            Ok((!self.has_results()?).then_some(failure))
        })
    }

    /// Removes the file, if it exists. Waits until the volume can be written.
    pub fn discard(&self) -> Result<(), FileError> {
        let path = self.path();
        if storage::read_if_exists(&path, MAX_BYTES).is_ok_and(|content| content.is_none()) {
            return Ok(());
        }
        storage::retry(|| files::remove_if_exists(&path))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("verdict-{}.json", self.attempt))
    }

    /// The failure in the file. Content that is not of this job and attempt does not count.
    fn recorded(&self) -> Result<Option<Failure>, VerdictError> {
        let path = self.path();
        let Some(content) = files::read_if_exists(&path, MAX_BYTES)? else { return Ok(None) };
        let problem = match serde_json::from_slice::<Document>(&content) {
            Ok(found) if found.job_uid == self.job_uid && found.attempt == self.attempt => {
                return Ok(Some(found.failure));
            }
            Ok(found) => format!("it belongs to attempt {} of job {}", found.attempt, found.job_uid),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "Ignoring the invalid verdict in {}.", path.display());
        Ok(None)
    }

    /// Whether the job has valid results. The workers replace invalid ones.
    fn has_results(&self) -> Result<bool, CheckpointError> {
        let Some(hash) = &self.training_hash else { return Ok(false) };
        match results::read(&self.directory, &self.job_uid, hash) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if storage::trouble(&error).is_some() => Err(error),
            Err(_) => Ok(false),
        }
    }
}

impl RecordFailure for VerdictFile {
    fn record(&self, failure: &Failure) -> Result<Recorded, VerdictError> {
        if self.has_results()? {
            return Ok(Recorded::ResultsExist);
        }
        let path = self.path();
        let Self { job_uid, attempt, .. } = self.clone();
        let document = Document { job_uid, attempt, failure: failure.clone() };
        let content = serde_json::to_vec_pretty(&document)
            .map_err(|error| VerdictError::Encode { path: path.clone(), error })?;
        if files::create_exclusively(&path, &content)? {
            return Ok(Recorded::Failure(document.failure));
        }
        if let Some(first) = self.recorded()? {
            return Ok(Recorded::Failure(first));
        }
        files::write_atomically(&path, &content)?;
        Ok(Recorded::Failure(document.failure))
    }
}

#[cfg(test)]
mod tests;
