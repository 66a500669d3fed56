//! Errors of checkpoints.

use std::{io, path::PathBuf};

use datjob_adversarial::state_dict::StateDictError;
use datjob_data::files::FileError;

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was read is not what was written.
    #[error("checkpoint file {} is corrupt: expected SHA-256 {expected}, got {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
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
    #[error("checkpoint file {} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A manifest that is not JSON.
    #[error("checkpoint file {} is corrupt: {problem}", path.display())]
    DamagedManifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest or results file of another release, or one that was edited.
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

impl CheckpointError {
    /// Whether the checkpoint cannot be used because its files are not as they were written.
    pub fn is_damage(&self) -> bool {
        // Tensors are decoded only after their SHA-256 was checked: an error of their format has another cause.
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::DamagedManifest { .. })
    }
}
