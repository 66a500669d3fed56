//! What an agent tells a worker: one line of JSON on standard input.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use datjob_api::{Training, training::NamedFile};
use serde::{Deserialize, Serialize};

use crate::engine::NamedFileError;

/// A worker's place in a world and what it is to do.
///
/// Standard input stays open as long as the agent lives: its end is how a worker learns that it is alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// UID of the job.
    pub job_uid: String,
    /// What is trained and how.
    pub training: Training,
    /// Directory of the data set's files.
    pub data: PathBuf,
    /// The files beside the data set's.
    pub files: BTreeMap<NamedFile, PathBuf>,
    /// The job's own checkpoint directory.
    pub checkpoints: PathBuf,
    /// Path of that directory below the checkpoint volume, for the results.
    pub checkpoints_below_volume: PathBuf,
    /// The membership that this worker belongs to.
    pub generation: u32,
    /// Its rank in the world.
    pub rank: u32,
    /// Ranks in the world.
    pub world_size: u32,
    /// Host of c10d's store.
    pub store_host: String,
    /// Port of c10d's store.
    pub store_port: u16,
    /// Own address, at which peers reach this worker.
    pub address: String,
    /// Threads for tensor operations.
    pub threads: u32,
    /// Where it computes.
    pub accelerator: Accelerator,
}

impl Assignment {
    /// Where a file beside the data set is.
    pub fn file(&self, file: NamedFile) -> Result<&Path, NamedFileError> {
        self.files.get(&file).map(PathBuf::as_path).ok_or(NamedFileError::NotGiven(file))
    }
}

/// Where a worker computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Accelerator {
    /// On the CPU.
    None,
    /// On the one CUDA device that it sees, with NCCL or with Gloo among the ranks.
    Cuda {
        /// Whether NCCL carries the collectives of CUDA tensors.
        nccl: bool,
    },
}
