//! Checkpoints: what a job needs to go on after everything was lost, and the weights that it is for.
//!
//! In the job's directory:
//! - `checkpoint-0003-a1b2c3d4.safetensors`: parameters and buffers (`model.…`), the optimizer's state (`optimizer.…`) and the
//!   averaged weights (`average.…`) after epoch 3, and `checkpoint-0003.json`, its [`Manifest`] with the SHA-256. The manifest
//!   is written last: what has none is not there. `checkpoint-0003-000120.json` is 120 steps later; its tensors also have the
//!   statistics of BatchNorm of all ranks (`ranks.buffers`) and the number of times that the epoch trained on each image
//!   (`epoch.samples`). With error feedback, all checkpoints have the rounding errors of all ranks (`ranks.residuals.…`).
//! - `best-0002-a1b2c3d4.safetensors`: the weights with the highest robust accuracy on the validation split so far, named by
//!   the newest manifest.
//! - `best.safetensors`, `last.safetensors` and `results.json`: the end. What lies beside them is of [`crate::outputs`].
//!
//! All weights have the names that RobustBench or torchvision gives them, and can be read from Python.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use datjob_adversarial::state_dict::{self, StateDict};
use datjob_data::{
    files::{self, FileError},
    storage,
    weights::WeightsCard,
};
use sha2::{Digest, Sha256};

mod error;
pub mod inventory;
pub mod listing;
mod manifest;
mod names;
pub mod results;
mod resume;

pub use error::CheckpointError;
pub use manifest::{Best, Manifest, OverfittingReference, PartialEpoch, Position, Steps};
pub use resume::Resumed;

/// The weights after the last epoch.
pub const LAST_FILE: &str = "last.safetensors";
/// The weights that are the job's result.
pub const BEST_FILE: &str = "best.safetensors";

/// Whether the directory of a job has a checkpoint. Waits until its volume can be read.
pub fn exists(directory: &Path) -> Result<bool, FileError> {
    let entries = storage::list(directory).map_err(|error| FileError::new("list", directory, error))?;
    let is_manifest = |entry: &storage::DirectoryEntry| {
        let name = entry.path.file_name().and_then(|name| name.to_str());
        name.and_then(names::parse_manifest).is_some()
    };
    Ok(entries.iter().any(is_manifest))
}

/// The tensors of a checkpoint on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedTensors {
    /// Completed epochs and steps.
    pub at: Steps,
    /// Their file.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl From<&Manifest> for SavedTensors {
    fn from(manifest: &Manifest) -> Self {
        Self { at: manifest.at(), file: resume::tensors_of(manifest), sha256: manifest.sha256.clone() }
    }
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
    pub fn save_tensors(&self, at: Steps, tensors: &StateDict) -> Result<SavedTensors, CheckpointError> {
        let name = |sha256: &str| names::tensors(at, sha256);
        let (file, sha256) = self.write_tensors(name, tensors, None, storage::write_atomically)?;
        Ok(SavedTensors { at, file, sha256 })
    }

    /// Writes the manifest of a checkpoint, or replaces it.
    pub fn save_manifest(
        &self,
        position: &Position,
        SavedTensors { at, file, sha256 }: &SavedTensors,
        best: Option<&Best>,
        overfitting_reference: Option<&OverfittingReference>,
    ) -> Result<(), CheckpointError> {
        let manifest = Manifest {
            epoch: at.epoch,
            epoch_step: at.step,
            step: position.step,
            optimizer_begin: position.optimizer_begin,
            step_scale: position.step_scale,
            validation_seed: Some(position.validation_seed),
            validation_pending: position.validation_pending,
            partial_epoch: position.partial_epoch,
            training_hash: self.training_hash.clone(),
            data: Some(self.data.clone()),
            additional_data: self.additional_data.clone(),
            file: Some(file.clone()),
            sha256: sha256.clone(),
            best: best.cloned(),
            overfitting_reference: overfitting_reference.cloned(),
        };
        let path = self.path.join(names::manifest(*at));
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| CheckpointError::Manifest { path: path.clone(), problem: error.to_string() })?;
        Ok(storage::write_atomically(&path, &json)?)
    }

    /// Writes weights that are the best so far; returns the file and its SHA-256.
    pub fn save_best(
        &self,
        epoch: u32,
        weights: &StateDict,
        card: &WeightsCard,
    ) -> Result<(String, String), CheckpointError> {
        let name = |sha256: &str| names::best(epoch, sha256);
        self.write_tensors(name, weights, Some(card), storage::write_atomically)
    }

    /// Writes the weights that are the job's result; returns the file and its SHA-256.
    pub fn save_result(
        &self,
        weights: &StateDict,
        card: &WeightsCard,
    ) -> Result<(String, String), CheckpointError> {
        self.write_tensors(|_| BEST_FILE.to_owned(), weights, Some(card), storage::write_atomically)
    }

    /// Writes the weights after the last epoch; returns the file and its SHA-256. Does not wait for a full volume: the result is
    /// valid without them.
    pub fn save_last(
        &self,
        weights: &StateDict,
        card: &WeightsCard,
    ) -> Result<(String, String), CheckpointError> {
        self.write_tensors(|_| LAST_FILE.to_owned(), weights, Some(card), files::write_atomically)
    }

    /// Removes all but the newest `keep` checkpoints between epochs and the one within the running epoch, tensors that no
    /// checkpoint names, and best weights that are no longer the best. Files of later epochs than the newest checkpoint stay.
    pub fn clean(&self, keep: usize, best: Option<&Best>) -> Result<(), CheckpointError> {
        let positions = self.positions()?;
        let kept = kept_positions(&positions, keep);
        for at in positions.iter().filter(|at| !kept.contains(at)) {
            // The manifest first: a checkpoint without one is not there.
            files::remove_if_exists(&self.path.join(names::manifest(*at)))?;
        }
        self.remove_unnamed_tensors(&kept)?;
        self.remove_partial_files(&kept)?;
        self.remove_other_best(&kept, best)
    }

    /// Removes what trainers that were killed left of files that they wrote.
    fn remove_partial_files(&self, kept: &[Steps]) -> Result<(), CheckpointError> {
        let Some(newest) = kept.last() else { return Ok(()) };
        for (at, name) in self.named(names::parse_partial)? {
            // This trainer may be writing best weights of the newest epoch.
            if at < (Steps { step: 0, ..*newest }) {
                files::remove_if_exists(&self.path.join(name))?;
            }
        }
        Ok(())
    }

    fn remove_unnamed_tensors(&self, kept: &[Steps]) -> Result<(), CheckpointError> {
        let Some(&newest) = kept.last() else { return Ok(()) };
        let mut files: BTreeMap<Steps, Vec<String>> = BTreeMap::new();
        for (at, name) in self.named(names::parse_tensors)? {
            files.entry(at).or_default().push(name);
        }
        for (at, names) in files.range(..=newest) {
            let is_kept = kept.binary_search(at).is_ok();
            // Only an interrupted training that did not repeat its bits has two files.
            if is_kept && names.len() == 1 {
                continue;
            }
            let named = if is_kept { Some(resume::tensors_of(&self.manifest(*at)?)) } else { None };
            for name in names.iter().filter(|name| Some(*name) != named.as_ref()) {
                files::remove_if_exists(&self.path.join(name))?;
            }
        }
        Ok(())
    }

    fn remove_other_best(&self, kept: &[Steps], best: Option<&Best>) -> Result<(), CheckpointError> {
        let Some(best) = best else { return Ok(()) };
        let mut others = self.named(names::parse_best)?;
        others.retain(|(epoch, name)| *epoch <= best.epoch && *name != best.file);
        if others.is_empty() {
            return Ok(());
        }
        // Checkpoints that are kept may name best weights of their time.
        let manifests = kept.iter().filter_map(|at| self.manifest(*at).ok());
        let named: BTreeSet<String> = manifests.filter_map(|manifest| Some(manifest.best?.file)).collect();
        for (_, name) in others.iter().filter(|(_, name)| !named.contains(name)) {
            files::remove_if_exists(&self.path.join(name))?;
        }
        Ok(())
    }

    /// The positions of the checkpoints, in rising order.
    fn positions(&self) -> Result<Vec<Steps>, CheckpointError> {
        Ok(self.named(names::parse_manifest)?.into_iter().map(|(at, _)| at).collect())
    }

    /// The files whose names are parsed, sorted by what they are parsed to.
    fn named<T: Ord>(&self, parse: fn(&str) -> Option<T>) -> Result<Vec<(T, String)>, CheckpointError> {
        let mut found = Vec::new();
        let entries = match storage::list(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(FileError::new("list", &self.path, error).into()),
        };
        for entry in entries {
            let Some(name) = entry.path.file_name().and_then(OsStr::to_str) else { continue };
            found.extend(parse(name).map(|parsed| (parsed, name.to_owned())));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Writes tensors to a file whose name may have their SHA-256; returns both.
    fn write_tensors(
        &self,
        name: impl Fn(&str) -> String,
        tensors: &StateDict,
        card: Option<&WeightsCard>,
        write: impl Fn(&Path, &[u8]) -> Result<(), FileError>,
    ) -> Result<(String, String), CheckpointError> {
        let bytes = state_dict::encode(tensors, card)
            .map_err(|error| CheckpointError::Format { path: self.path.clone(), error })?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let file = name(&sha256);
        write(&self.path.join(&file), &bytes)?;
        Ok((file, sha256))
    }
}

/// The checkpoints that are kept, in rising order: the newest `keep` between epochs, and the newest of all.
fn kept_positions(positions: &[Steps], keep: usize) -> Vec<Steps> {
    let between: Vec<Steps> = positions.iter().copied().filter(|at| at.step == 0).collect();
    let mut kept = between[between.len().saturating_sub(keep)..].to_vec();
    kept.extend(positions.last().filter(|at| at.step > 0));
    kept
}

#[cfg(test)]
mod tests;
