//! What agent and worker say to each other, a line of JSON each: the agent one [`Assignment`] on the worker's standard input,
//! the worker [`Event`]s on its standard output.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use datjob_api::{
    Training,
    report::{Accuracy, Failure, Progress, Timing},
    training::NamedFile,
};
use serde::{Deserialize, Serialize};

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
    /// Where a file beside the data set is; none where nobody gave it.
    pub fn file(&self, file: NamedFile) -> Option<&Path> {
        self.files.get(&file).map(PathBuf::as_path)
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

/// An event in the life of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// How far training is; from rank 0 alone, at most once a second.
    Progress(Progress),
    /// Where the time of an epoch went; from rank 0 alone.
    Timing(Timing),
    /// An evaluation on the validation split; from rank 0 alone.
    Accuracy(Accuracy),
    /// The final evaluation: images that this rank has evaluated, of how many. From rank 0 alone.
    Evaluating {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The end, with the reason; a good end needs no word.
    Failed(Failure),
}
