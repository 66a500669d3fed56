//! Checkpoints: what a job needs to go on after everything was lost, and the weights that it is for.
//!
//! In the job's directory:
//! - `checkpoint-0003.safetensors`: parameters and buffers (`model.…`), the optimizer's state (`optimizer.…`) and the
//!   averaged weights (`average.…`) after epoch 3, and `checkpoint-0003.json`, its [`Manifest`] with the SHA-256. The manifest is written last: what has
//!   none is not there.
//! - `best-0002.safetensors`: the weights with the highest robust accuracy on the validation split so far, named by
//!   the newest manifest.
//! - `best.safetensors`, `last.safetensors` and `results.json`: the end. What lies beside them is of [`crate::outputs`].
//!
//! All weights have the names that RobustBench or torchvision gives them, and can be read from Python.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use datjob_api::report::{AttackCount, Count};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use datjob_adversarial::state_dict::{self, StateDict, StateDictError};
use datjob_data::{
    files::{self, FileError},
    storage,
    weights::{TENSORS_MAX_BYTES, WeightsCard},
};

pub mod results;

/// Largest manifest that is read, in bytes.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// The weights after the last epoch.
pub const LAST_FILE: &str = "last.safetensors";
/// The weights that are the job's result.
pub const BEST_FILE: &str = "best.safetensors";

/// Where a training stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Completed optimizer steps.
    pub step: u64,
    /// The step after which the optimizer's state began.
    pub optimizer_begin: u64,
    /// What the attack's step sizes are multiplied by.
    pub step_scale: f64,
    /// Seed of the validation split.
    pub validation_seed: u64,
    /// Whether the epoch has still to be validated.
    pub validation_pending: bool,
}

/// The tensors of a checkpoint on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedTensors {
    /// Completed epochs.
    pub epoch: u32,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// What is known of a checkpoint beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Completed epochs.
    pub epoch: u32,
    /// Completed optimizer steps.
    pub step: u64,
    /// The step after which the optimizer's state began.
    #[serde(default)]
    pub optimizer_begin: u64,
    /// What the attack's step sizes are multiplied by.
    #[serde(default = "unscaled")]
    pub step_scale: f64,
    /// Seed of the validation split; absent in checkpoints of trainers that drew it by the training's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seed: Option<u64>,
    /// Whether the epoch has still to be validated.
    #[serde(default)]
    pub validation_pending: bool,
    /// SHA-256 of the training spec that it belongs to.
    pub training_hash: String,
    /// Fingerprint of the data set that was trained on; absent in checkpoints of trainers that took none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Fingerprint of the additional images and the source of their labels; absent without them, and in checkpoints of trainers that took
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_data: Option<String>,
    /// SHA-256 of the file of tensors.
    pub sha256: String,
    /// The best weights so far.
    pub best: Option<Best>,
    /// What catastrophic overfitting is a fall from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting_reference: Option<OverfittingReference>,
}

fn unscaled() -> f64 {
    1.0
}

/// The weights with the highest robust accuracy on the validation split so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Best {
    /// After which epoch they stood, counted from 1.
    pub epoch: u32,
    /// Their clean accuracy on the validation split.
    pub clean: Count,
    /// Their robust accuracy on the validation split.
    pub robust: AttackCount,
    /// Their accuracy under a single step, where training attacks with a single step.
    #[serde(default)]
    pub single_step: Option<Count>,
    /// Whether they are averaged.
    #[serde(default)]
    pub averaged: bool,
    /// Their file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
}

/// The highest robust accuracy so far on the validation split of the weights that are trained; averaged weights follow them
/// slowly. Only for single-step training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverfittingReference {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Robust accuracy.
    pub robust: AttackCount,
    /// Accuracy under a single step.
    pub single_step: Count,
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was read is not what was written.
    #[error(
        "checkpoint file {} is corrupt: expected SHA-256 {expected}, got {found}; remove it and {} to resume from the \
         previous checkpoint",
        path.display(), manifest.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The manifest that names it.
        manifest: PathBuf,
        /// The SHA-256 in the manifest.
        expected: String,
        /// The SHA-256 of the content.
        found: String,
    },
    /// The volume is too small for the files of the job.
    #[error(
        "the volume of {} has {} MiB of free space, and the job needs {} MiB for its checkpoints and results; enlarge the \
         volume, remove files, or lower checkpoint.keep.last",
        path.display(), available >> 20, required.div_ceil(1 << 20)
    )]
    Room {
        /// The directory of the job.
        path: PathBuf,
        /// Free bytes.
        available: u64,
        /// Needed bytes.
        required: u64,
        /// The error that writing would end with.
        source: io::Error,
    },
    /// A file that the manifest names is gone.
    #[error(
        "checkpoint file {} is missing; remove its manifest {} to resume from the previous checkpoint",
        path.display(), manifest.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The manifest that names it.
        manifest: PathBuf,
    },
    /// A manifest or results file that cannot be read.
    #[error("{} is invalid: {problem}; remove it to continue without it", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint of another training.
    #[error(
        "{} belongs to another training spec: expected hash {expected}, got {found}; use another checkpoint directory, \
         or remove the checkpoints in this one",
        path.display()
    )]
    OtherTraining {
        /// The file.
        path: PathBuf,
        /// The hash of this training.
        expected: String,
        /// The hash that was found.
        found: String,
    },
    /// A checkpoint of a training on other images.
    #[error(
        "{} belongs to a training on different images; restore the original data set, or start again in another \
         checkpoint directory",
        path.display()
    )]
    OtherData {
        /// The file.
        path: PathBuf,
    },
    /// The content of a file of tensors.
    #[error("{}: {error}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: StateDictError,
    },
}

/// The checkpoint directory of one job.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    training_hash: String,
    data: String,
    additional_data: Option<String>,
}

impl Directory {
    /// The directory at `path` of the training with this hash, on the data set and the additional images with these
    /// fingerprints.
    pub fn new(path: &Path, training_hash: String, data: String, additional_data: Option<String>) -> Self {
        Self { path: path.to_owned(), training_hash, data, additional_data }
    }

    /// Waits until the volume has this number of free bytes. A file system that does not say is taken to have room.
    pub fn wait_for_room(&self, required: u64) -> Result<(), CheckpointError> {
        storage::retry(|| self.require_room(required))
    }

    fn require_room(&self, required: u64) -> Result<(), CheckpointError> {
        files::create_directory(&self.path)?;
        let Ok(volume) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let available = volume.f_bavail.saturating_mul(volume.f_frsize);
        if volume.f_blocks == 0 || available >= required {
            return Ok(());
        }
        let source = rustix::io::Errno::NOSPC.into();
        Err(CheckpointError::Room { path: self.path.clone(), available, required, source })
    }

    /// Writes the tensors of a checkpoint. It is not there before [`save_manifest`](Self::save_manifest).
    pub fn save_tensors(&self, epoch: u32, tensors: &StateDict) -> Result<SavedTensors, CheckpointError> {
        let sha256 = self.write_tensors(&tensors_file(epoch), tensors, None, storage::write_atomically)?;
        Ok(SavedTensors { epoch, sha256 })
    }

    /// Writes the manifest of a checkpoint, or replaces it.
    pub fn save_manifest(
        &self,
        position: Position,
        SavedTensors { epoch, sha256 }: &SavedTensors,
        best: Option<&Best>,
        overfitting_reference: Option<&OverfittingReference>,
    ) -> Result<(), CheckpointError> {
        let Position { step, optimizer_begin, step_scale, validation_seed, validation_pending } = position;
        let manifest = Manifest {
            epoch: *epoch,
            step,
            optimizer_begin,
            step_scale,
            validation_seed: Some(validation_seed),
            validation_pending,
            training_hash: self.training_hash.clone(),
            data: Some(self.data.clone()),
            additional_data: self.additional_data.clone(),
            sha256: sha256.clone(),
            best: best.cloned(),
            overfitting_reference: overfitting_reference.cloned(),
        };
        let json = serde_json::to_vec_pretty(&manifest).map_err(|e| self.bad_manifest(*epoch, &e))?;
        Ok(storage::write_atomically(&self.path.join(manifest_file(*epoch)), &json)?)
    }

    /// Writes weights that are the best so far; returns the file and its SHA-256.
    pub fn save_best(
        &self,
        epoch: u32,
        weights: &StateDict,
        card: &WeightsCard,
    ) -> Result<(String, String), CheckpointError> {
        let file = best_file(epoch);
        let sha256 = self.write_tensors(&file, weights, Some(card), storage::write_atomically)?;
        Ok((file, sha256))
    }

    /// Writes the weights that are the job's result; returns the file and its SHA-256.
    pub fn save_result(
        &self,
        weights: &StateDict,
        card: &WeightsCard,
    ) -> Result<(String, String), CheckpointError> {
        let file = BEST_FILE.to_owned();
        let sha256 = self.write_tensors(&file, weights, Some(card), storage::write_atomically)?;
        Ok((file, sha256))
    }

    /// Writes the weights after the last epoch; returns the file and its SHA-256. Does not wait for a full volume: the result is
    /// valid without them.
    pub fn save_last(
        &self,
        weights: &StateDict,
        card: &WeightsCard,
    ) -> Result<(String, String), CheckpointError> {
        let file = LAST_FILE.to_owned();
        let sha256 = self.write_tensors(&file, weights, Some(card), files::write_atomically)?;
        Ok((file, sha256))
    }

    /// The manifest of the newest checkpoint, if there is one.
    pub fn newest(&self) -> Result<Option<Manifest>, CheckpointError> {
        let Some(epoch) = self.epochs()?.last().copied() else { return Ok(None) };
        let path = self.path.join(manifest_file(epoch));
        let content = storage::read_if_exists(&path, MANIFEST_MAX_BYTES)?.unwrap_or_default();
        let manifest: Manifest =
            serde_json::from_slice(&content).map_err(|e| self.bad_manifest(epoch, &e))?;
        if manifest.training_hash != self.training_hash {
            let (expected, found) = (self.training_hash.clone(), manifest.training_hash);
            return Err(CheckpointError::OtherTraining { path, expected, found });
        }
        let is_other = |found: Option<&String>, own| found.is_some_and(|found| Some(found) != own);
        if is_other(manifest.data.as_ref(), Some(&self.data))
            || is_other(manifest.additional_data.as_ref(), self.additional_data.as_ref())
        {
            return Err(CheckpointError::OtherData { path });
        }
        Ok(Some(manifest))
    }

    /// The tensors of a checkpoint.
    pub fn load(&self, manifest: &Manifest) -> Result<StateDict, CheckpointError> {
        self.read_tensors(&tensors_file(manifest.epoch), &manifest.sha256, manifest.epoch)
    }

    /// The best weights that were known after epoch `epoch`.
    pub fn load_best(&self, best: &Best, epoch: u32) -> Result<StateDict, CheckpointError> {
        self.read_tensors(&best.file, &best.sha256, epoch)
    }

    /// Removes all but the newest `keep` checkpoints, and best weights that are no longer the best.
    pub fn clean(&self, keep: usize, best: Option<&Best>) -> Result<(), CheckpointError> {
        let epochs = self.epochs()?;
        for &epoch in &epochs[..epochs.len().saturating_sub(keep)] {
            // The manifest first: a checkpoint without one is not there.
            files::remove_if_exists(&self.path.join(manifest_file(epoch)))?;
            files::remove_if_exists(&self.path.join(tensors_file(epoch)))?;
        }
        // Checkpoints that are kept may name best weights of their time.
        let oldest_kept = epochs.iter().rev().nth(keep.saturating_sub(1)).copied().unwrap_or(0);
        for (epoch, name) in self.numbered("best-", ".safetensors")? {
            let is_best = best.is_some_and(|best| best.file == name);
            let named_by_kept =
                epochs.iter().any(|&kept| kept >= oldest_kept && self.names_best(kept, &name));
            if !is_best && !named_by_kept && epoch < best.map_or(0, |best| best.epoch) {
                files::remove_if_exists(&self.path.join(name))?;
            }
        }
        Ok(())
    }

    fn names_best(&self, epoch: u32, file: &str) -> bool {
        let manifest = storage::read_if_exists(&self.path.join(manifest_file(epoch)), MANIFEST_MAX_BYTES);
        let manifest =
            manifest.ok().flatten().and_then(|json| serde_json::from_slice::<Manifest>(&json).ok());
        manifest.and_then(|manifest| manifest.best).is_some_and(|best| best.file == file)
    }

    /// The epochs after which there is a checkpoint, in rising order.
    fn epochs(&self) -> Result<Vec<u32>, CheckpointError> {
        Ok(self.numbered("checkpoint-", ".json")?.into_iter().map(|(epoch, _)| epoch).collect())
    }

    fn numbered(&self, prefix: &str, suffix: &str) -> Result<Vec<(u32, String)>, CheckpointError> {
        let mut found = Vec::new();
        let entries = match storage::list(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(FileError::new("list", &self.path, error).into()),
        };
        for entry in entries {
            let Some(name) = entry.path.file_name().and_then(OsStr::to_str) else { continue };
            let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
            if let Some(epoch) = number.and_then(|number| number.parse().ok()) {
                found.push((epoch, name.to_owned()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn write_tensors(
        &self,
        file: &str,
        tensors: &StateDict,
        card: Option<&WeightsCard>,
        write: impl Fn(&Path, &[u8]) -> Result<(), FileError>,
    ) -> Result<String, CheckpointError> {
        let path = self.path.join(file);
        let bytes = state_dict::encode(tensors, card)
            .map_err(|error| CheckpointError::Format { path: path.clone(), error })?;
        write(&path, &bytes)?;
        Ok(hex::encode(Sha256::digest(&bytes)))
    }

    fn read_tensors(&self, file: &str, expected: &str, epoch: u32) -> Result<StateDict, CheckpointError> {
        let path = self.path.join(file);
        let manifest = self.path.join(manifest_file(epoch));
        let Some(bytes) = storage::read_if_exists(&path, TENSORS_MAX_BYTES)? else {
            return Err(CheckpointError::Missing { path, manifest });
        };
        let found = hex::encode(Sha256::digest(&bytes));
        if found != expected {
            return Err(CheckpointError::Damaged { path, manifest, expected: expected.to_owned(), found });
        }
        state_dict::decode(&bytes).map_err(|error| CheckpointError::Format { path, error })
    }

    fn bad_manifest(&self, epoch: u32, error: &serde_json::Error) -> CheckpointError {
        CheckpointError::Manifest { path: self.path.join(manifest_file(epoch)), problem: error.to_string() }
    }
}

fn tensors_file(epoch: u32) -> String {
    format!("checkpoint-{epoch:04}.safetensors")
}

fn manifest_file(epoch: u32) -> String {
    format!("checkpoint-{epoch:04}.json")
}

fn best_file(epoch: u32) -> String {
    format!("best-{epoch:04}.safetensors")
}

#[cfg(test)]
mod tests;
