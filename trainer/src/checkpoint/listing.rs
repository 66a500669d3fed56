//! The list of the checkpoints of a job, with everything that is damaged. Pure.

use std::collections::BTreeSet;

use datjob_api::report::{AttackCount, Count, Results};
use datjob_data::files;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    BEST_FILE, Best, CheckpointError, LAST_FILE, Manifest, Steps,
    inventory::{FoundCheckpoint, FoundFile, FoundResults, Inventory},
    names, results, resume,
};

/// The content of the directory of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobListing {
    /// Name of the directory: the UID of the job; on a workstation the name of the job.
    pub directory: String,
    /// The checkpoints, in ascending order.
    pub checkpoints: Vec<CheckpointListing>,
    /// Files that belong to no checkpoint, sorted by name.
    pub other_files: Vec<OtherFile>,
    /// Number of results that a final evaluation has kept, which is not complete; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_results: Option<usize>,
    /// The content of `results.json`; absent before the end of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsListing>,
    /// What is damaged or cannot be read, a sentence each.
    pub problems: Vec<String>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointListing {
    /// Completed epochs.
    pub epoch: u32,
    /// Completed steps of the epoch after them; 0 between epochs.
    pub epoch_step: u64,
    /// File of the manifest.
    pub manifest: String,
    /// State of manifest and tensors.
    pub state: FileState,
    /// What the manifest says; absent if it cannot be read.
    #[serde(flatten)]
    pub description: Option<Description>,
}

/// What a manifest says about its checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Completed optimizer steps of all epochs.
    pub step: u64,
    /// Whether the epoch has still to be validated.
    pub validation_pending: bool,
    /// File of the tensors.
    pub file: String,
    /// Size of that file in bytes; absent if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Time of the last write of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// SHA-256 in the manifest.
    pub sha256: String,
    /// The best weights so far; absent before the first validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<BestListing>,
}

/// Best weights that a manifest names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BestListing {
    /// Epoch of the weights, counted from 1.
    pub epoch: u32,
    /// Clean accuracy on the validation split.
    pub clean: Count,
    /// Robust accuracy on the validation split.
    pub robust: AttackCount,
    /// Whether the weights are averaged.
    pub averaged: bool,
    /// Their file.
    pub file: String,
    /// SHA-256 in the manifest.
    pub sha256: String,
    /// State of the file.
    pub state: FileState,
}

/// Whether files are as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FileState {
    /// The SHA-256 of the file is the recorded one.
    Whole,
    /// The SHA-256 of the file is another one.
    Corrupt,
    /// The file is missing.
    Missing,
    /// The manifest is not JSON.
    ManifestCorrupt,
    /// The manifest has unknown or wrong fields: it is of a newer release, or was edited.
    ManifestInvalid,
    /// The file system has returned an error.
    Unreadable,
}

impl From<Option<&CheckpointError>> for FileState {
    fn from(error: Option<&CheckpointError>) -> Self {
        use CheckpointError as E;
        match error {
            None => Self::Whole,
            Some(E::Damaged { .. } | E::Format { .. }) => Self::Corrupt,
            Some(E::Missing { .. }) => Self::Missing,
            Some(E::DamagedManifest { .. }) => Self::ManifestCorrupt,
            Some(E::Manifest { .. } | E::OtherTraining { .. } | E::OtherData { .. }) => Self::ManifestInvalid,
            Some(E::File(_) | E::Room { .. }) => Self::Unreadable,
        }
    }
}

/// A file that belongs to no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherFile {
    /// Name of the file.
    pub file: String,
    /// Kind of the file.
    pub kind: OtherKind,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
}

/// Kind of a file that belongs to no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OtherKind {
    /// A damaged file that a resuming training has renamed.
    SetAside,
    /// Tensors that no manifest names: a training was interrupted between both, or writes the manifest next.
    Tensors,
    /// Best weights that no manifest names.
    BestWeights,
    /// A file that is being written, or whose write was interrupted.
    Partial,
}

/// The content of `results.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultsListing {
    /// The results on the test set; absent if the file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Results>,
    /// Whether `best.safetensors` has the SHA-256 in the results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_file: Option<FileState>,
    /// Whether `last.safetensors` has the SHA-256 in `results.json`; absent if the job could not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_file: Option<FileState>,
    /// Files that the job could not write, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_written: Vec<String>,
}

impl JobListing {
    /// Whether nothing is damaged and everything can be read.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }
}

impl From<&Inventory> for JobListing {
    fn from(inventory: &Inventory) -> Self {
        let (files, named) = (&inventory.files, named_files(&inventory.checkpoints));
        let other_files: Vec<_> = files.iter().filter_map(|file| other_file(file, &named)).collect();
        Self {
            directory: inventory.directory.clone(),
            checkpoints: inventory.checkpoints.iter().map(|found| checkpoint(found, files)).collect(),
            evaluation_results: inventory.evaluation.as_ref().ok().copied().flatten(),
            results: match &inventory.results {
                Ok(found) => found.as_ref().map(results_listing),
                Err(_) => Some(ResultsListing::default()),
            },
            problems: problems(inventory, &other_files),
            other_files,
        }
    }
}

/// The files that manifests name, apart from the manifests themselves.
fn named_files(checkpoints: &[FoundCheckpoint]) -> BTreeSet<String> {
    let manifests = checkpoints.iter().filter_map(|found| found.manifest.as_ref().ok());
    let names = |manifest: &Manifest| {
        let best = manifest.best.as_ref().map(|best| best.file.clone());
        [Some(resume::tensors_of(manifest)), best].into_iter().flatten()
    };
    manifests.flat_map(names).collect()
}

fn checkpoint(found: &FoundCheckpoint, files: &[FoundFile]) -> CheckpointListing {
    let FoundCheckpoint { file, at, manifest, tensors_error, best_error } = found;
    let Steps { epoch, step } = manifest.as_ref().map_or(*at, Manifest::at);
    let best_state = FileState::from(best_error.as_ref());
    CheckpointListing {
        epoch,
        epoch_step: step,
        manifest: file.clone(),
        state: FileState::from(manifest.as_ref().err().or(tensors_error.as_ref())),
        description: manifest.as_ref().ok().map(|manifest| description(manifest, best_state, files)),
    }
}

fn description(manifest: &Manifest, best_state: FileState, files: &[FoundFile]) -> Description {
    let file = resume::tensors_of(manifest);
    let found = files.iter().find(|found| found.name == file);
    let best = |best: &Best| BestListing {
        epoch: best.epoch,
        clean: best.clean,
        robust: best.robust.clone(),
        averaged: best.averaged,
        file: best.file.clone(),
        sha256: best.sha256.clone(),
        state: best_state,
    };
    Description {
        step: manifest.step,
        validation_pending: manifest.validation_pending,
        bytes: found.map(|found| found.bytes),
        modified: found.and_then(|found| found.modified),
        file,
        sha256: manifest.sha256.clone(),
        best: manifest.best.as_ref().map(best),
    }
}

fn other_file(found: &FoundFile, named: &BTreeSet<String>) -> Option<OtherFile> {
    let FoundFile { name, bytes, modified } = found;
    let kind = other_kind(name, named)?;
    Some(OtherFile { file: name.clone(), kind, bytes: *bytes, modified: *modified })
}

/// The kind of a file, if it belongs to no checkpoint and no output.
fn other_kind(name: &str, named: &BTreeSet<String>) -> Option<OtherKind> {
    if let Some(original) = names::parse_set_aside(name) {
        return names::is_of_checkpoint(original).then_some(OtherKind::SetAside);
    }
    let partial = name.strip_suffix(files::PARTIAL_EXTENSION).and_then(|name| name.strip_suffix('.'));
    if let Some(original) = partial {
        let is_output = [BEST_FILE, LAST_FILE, results::FILE].contains(&original);
        return (is_output || names::is_of_checkpoint(original)).then_some(OtherKind::Partial);
    }
    if named.contains(name) {
        return None;
    }
    let tensors = names::parse_tensors(name).map(|_| OtherKind::Tensors);
    tensors.or_else(|| names::parse_best(name).map(|_| OtherKind::BestWeights))
}

fn results_listing(found: &FoundResults) -> ResultsListing {
    let FoundResults { ending, best_error, last_error } = found;
    ResultsListing {
        recorded: Some(ending.results.clone()),
        best_file: Some(FileState::from(best_error.as_ref())),
        last_file: ending.last_sha256().map(|_| FileState::from(last_error.as_ref())),
        not_written: ending.not_written.clone(),
    }
}

/// What is damaged or cannot be read, a sentence each, without repetitions: several manifests may name the same best weights.
fn problems(inventory: &Inventory, other_files: &[OtherFile]) -> Vec<String> {
    let of_checkpoint = |found: &FoundCheckpoint| {
        let errors = [found.manifest.as_ref().err(), found.tensors_error.as_ref(), found.best_error.as_ref()];
        errors.into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>()
    };
    let of_results = match &inventory.results {
        Err(error) => vec![error.to_string()],
        Ok(found) => {
            let errors = found.iter().flat_map(|found| [&found.best_error, &found.last_error]);
            errors.flatten().map(ToString::to_string).collect()
        }
    };
    let of_evaluation = inventory.evaluation.as_ref().err().map(ToString::to_string);
    let of_set_aside = other_files.iter().filter(|other| other.kind == OtherKind::SetAside);
    let of_set_aside = of_set_aside.map(|other| {
        let path = inventory.path.join(&other.file);
        format!("{} was damaged and is set aside; remove it once you know the cause", path.display())
    });
    let mut problems = Vec::new();
    let of_checkpoints = inventory.checkpoints.iter().flat_map(of_checkpoint);
    for problem in of_checkpoints.chain(of_results).chain(of_evaluation).chain(of_set_aside) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

#[cfg(test)]
mod tests;
