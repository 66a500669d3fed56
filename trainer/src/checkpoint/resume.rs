//! Reads the newest checkpoint that is whole, and sets damaged ones aside.

use std::{ffi::OsStr, fs, path::Path};

use datjob_adversarial::state_dict::{self, StateDict};
use datjob_data::{storage, weights::TENSORS_MAX_BYTES};
use serde_json::error::Category;
use sha2::{Digest, Sha256};

use super::{Best, CheckpointError, Directory, Manifest, Steps, names};

/// Largest manifest that is read, in bytes.
pub(super) const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// What a training resumes from.
#[derive(Debug, Default)]
pub struct Resumed {
    /// The newest checkpoint that is whole.
    pub checkpoint: Option<(Manifest, StateDict)>,
    /// What was damaged, and what follows: a sentence without a full stop each.
    pub warnings: Vec<String>,
}

impl Directory {
    /// Reads the newest checkpoint that is whole. A damaged one is set aside: its files get another name, and the one before is
    /// read. The checkpoint loses best weights that are damaged.
    pub fn resume(&self) -> Result<Resumed, CheckpointError> {
        let mut resumed = Resumed::default();
        for at in self.positions()?.into_iter().rev() {
            match self.read_twice(at) {
                Ok((mut manifest, tensors)) => {
                    if let Some(error) = self.check_best(manifest.best.as_ref())? {
                        manifest.best = None;
                        manifest.overfitting_reference = None;
                        // After the last epoch, no other validation would follow.
                        manifest.validation_pending |= manifest.epoch_step == 0;
                        resumed.warnings.push(format!(
                            "{error}; these best weights are lost, and the next validation selects new ones"
                        ));
                    }
                    resumed.checkpoint = Some((manifest, tensors));
                    break;
                }
                Err(error) if error.is_damage() => {
                    resumed
                        .warnings
                        .push(format!("{error}; the training resumes from an earlier checkpoint"));
                    self.set_aside(at);
                }
                Err(error) => return Err(error),
            }
        }
        if resumed.checkpoint.is_none()
            && let Some(last) = resumed.warnings.last_mut()
        {
            *last =
                last.replace("the training resumes from an earlier checkpoint", "the training starts again");
        }
        Ok(resumed)
    }

    /// A client of a network file system may have kept old content: what looks damaged is opened and read once more.
    fn read_twice(&self, at: Steps) -> Result<(Manifest, StateDict), CheckpointError> {
        match self.read(at) {
            Err(error) if error.is_damage() => self.read(at),
            result => result,
        }
    }

    fn read(&self, at: Steps) -> Result<(Manifest, StateDict), CheckpointError> {
        let manifest = self.manifest(at)?;
        self.require_own(&manifest, at)?;
        let tensors = self.read_tensors(&tensors_of(&manifest), &manifest.sha256)?;
        Ok((manifest, tensors))
    }

    /// The manifest of a checkpoint.
    pub(super) fn manifest(&self, at: Steps) -> Result<Manifest, CheckpointError> {
        let path = self.path.join(names::manifest(at));
        let content = storage::read_if_exists(&path, MANIFEST_MAX_BYTES)?.unwrap_or_default();
        parse_manifest(&path, &content)
    }

    fn require_own(&self, manifest: &Manifest, at: Steps) -> Result<(), CheckpointError> {
        let path = || self.path.join(names::manifest(at));
        if manifest.training_hash != self.training_hash {
            let (expected, found) = (self.training_hash.clone(), manifest.training_hash.clone());
            return Err(CheckpointError::OtherTraining { path: path(), expected, found });
        }
        let is_other = |found: Option<&String>, own| found.is_some_and(|found| Some(found) != own);
        if is_other(manifest.data.as_ref(), Some(&self.data))
            || is_other(manifest.additional_data.as_ref(), self.additional_data.as_ref())
        {
            return Err(CheckpointError::OtherData { path: path() });
        }
        Ok(())
    }

    /// Why the best weights cannot be read, if they are damaged.
    fn check_best(&self, best: Option<&Best>) -> Result<Option<CheckpointError>, CheckpointError> {
        match best.map(|best| self.load_best(best)) {
            Some(Err(error)) if error.is_damage() => Ok(Some(error)),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(None),
        }
    }

    /// Renames the files of a damaged checkpoint. If that fails, the next resume finds it again.
    fn set_aside(&self, at: Steps) {
        let tensors = self.manifest(at).ok().map(|manifest| tensors_of(&manifest));
        for name in [Some(names::manifest(at)), tensors].into_iter().flatten() {
            let path = self.path.join(&name);
            if let Err(error) = fs::rename(&path, self.path.join(names::set_aside(&name))) {
                tracing::warn!(path = %path.display(), %error, "Cannot rename a file of a damaged checkpoint.");
            }
        }
    }

    /// The best weights that a checkpoint names.
    pub fn load_best(&self, best: &Best) -> Result<StateDict, CheckpointError> {
        self.read_tensors(&best.file, &best.sha256)
    }

    fn read_tensors(&self, file: &str, expected: &str) -> Result<StateDict, CheckpointError> {
        let path = self.path.join(file);
        let Some(bytes) = storage::read_if_exists(&path, TENSORS_MAX_BYTES)? else {
            return Err(CheckpointError::Missing { path });
        };
        let found = hex::encode(Sha256::digest(&bytes));
        if found != expected {
            return Err(CheckpointError::Damaged { path, expected: expected.to_owned(), found });
        }
        state_dict::decode(&bytes).map_err(|error| CheckpointError::Format { path, error })
    }
}

/// Parses the content of a manifest; `path` is its path in messages. The manifest names only files in its own directory.
pub(super) fn parse_manifest(path: &Path, content: &[u8]) -> Result<Manifest, CheckpointError> {
    let manifest: Manifest = serde_json::from_slice(content).map_err(|error| {
        let (path, problem) = (path.to_owned(), error.to_string());
        // A newer release may have other fields; its checkpoints are not damaged.
        match error.classify() {
            Category::Data => CheckpointError::Manifest { path, problem },
            Category::Io | Category::Syntax | Category::Eof => {
                CheckpointError::DamagedManifest { path, problem }
            }
        }
    })?;
    let best = manifest.best.as_ref().map(|best| &best.file);
    if let Some(file) = manifest.file.iter().chain(best).find(|file| !is_name(file)) {
        let problem = format!("expected the name of a file in the same directory, got {file:?}");
        return Err(CheckpointError::Manifest { path: path.to_owned(), problem });
    }
    Ok(manifest)
}

/// Whether a path is only a name, which leads to no other directory.
fn is_name(path: &str) -> bool {
    Path::new(path).file_name() == Some(OsStr::new(path))
}

/// The file of a checkpoint's tensors.
pub(super) fn tensors_of(manifest: &Manifest) -> String {
    manifest.file.clone().unwrap_or_else(|| names::tensors_of_0_1_0(manifest.epoch))
}
