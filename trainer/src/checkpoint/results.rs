//! `results.json`: the end of a job. Once it is there, the job has succeeded, whatever happens to its pods.

use std::path::Path;

use datjob_api::report::Results;
use serde::{Deserialize, Serialize};

use super::{CheckpointError, MANIFEST_MAX_BYTES};
use crate::files;

const FILE: &str = "results.json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    job_uid: String,
    results: Results,
}

/// Writes the results; durable on return.
pub fn write(directory: &Path, job_uid: &str, results: &Results) -> Result<(), CheckpointError> {
    let path = directory.join(FILE);
    let document = Document { job_uid: job_uid.to_owned(), results: results.clone() };
    let json = serde_json::to_vec_pretty(&document)
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
    let Some(content) = files::read_if_exists(&path, MANIFEST_MAX_BYTES)? else { return Ok(None) };
    let document: Document = serde_json::from_slice(&content)
        .map_err(|error| CheckpointError::Manifest { path: path.clone(), problem: error.to_string() })?;
    if document.job_uid != job_uid {
        return Err(CheckpointError::Manifest {
            path,
            problem: format!("it is of job {}", document.job_uid),
        });
    }
    if document.results.training_hash != training_hash {
        let (expected, found) = (training_hash.to_owned(), document.results.training_hash);
        return Err(CheckpointError::OtherTraining { path, expected, found });
    }
    Ok(Some(document.results))
}
