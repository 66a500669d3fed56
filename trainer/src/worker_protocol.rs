//! The messages between an agent and its workers, one line of JSON each. The agent writes one [`Assignment`] to the
//! worker's standard input, and later [`Command`]s. The worker writes [`Event`]s to its standard output. Pure data.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use datjob_adversarial::evaluate::{EvaluationProgress, Work};
use datjob_api::{
    Training,
    report::{Accuracy, Count, EvaluationPart, Failure, Progress, StorageTrouble, Timing},
    training::NamedFile,
};
use serde::{Deserialize, Serialize};

/// The rank of a worker and everything it needs to train.
///
/// The agent keeps the worker's standard input open while it runs. The worker exits at the end of its standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// UID of the job.
    pub job_uid: String,
    /// The attempt of the job.
    pub attempt: u32,
    /// The training spec.
    pub training: Training,
    /// Directory with the files of the data set.
    pub data: PathBuf,
    /// Additional files that the spec names, such as initial weights.
    pub files: BTreeMap<NamedFile, PathBuf>,
    /// Checkpoint directory of the job.
    pub checkpoints: PathBuf,
    /// Path of `checkpoints` relative to the checkpoint volume, for the results.
    pub checkpoints_below_volume: PathBuf,
    /// Generation of the world that this worker joins.
    pub generation: u32,
    /// Rank in the world.
    pub rank: u32,
    /// Number of ranks in the world.
    pub world_size: u32,
    /// Host of the c10d store.
    pub store_host: String,
    /// Port of the c10d store.
    pub store_port: u16,
    /// Address at which other ranks reach this worker.
    pub address: String,
    /// Number of threads for tensor operations.
    pub threads: u32,
    /// The device to compute on.
    pub accelerator: Accelerator,
}

impl Assignment {
    /// Path of an additional file; `None` if the assignment does not have it.
    pub fn file(&self, file: NamedFile) -> Option<&Path> {
        self.files.get(&file).map(PathBuf::as_path)
    }
}

/// What an agent asks of a worker that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Write a checkpoint after the next step, and exit. All ranks of the world do so.
    Leave,
    /// Print the stack of the main thread and end at once: this worker hangs.
    Abort,
}

/// The device of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Accelerator {
    /// No accelerator: the CPU.
    None,
    /// The CUDA device that is visible to the worker.
    Cuda {
        /// Whether collectives of CUDA tensors use NCCL instead of Gloo.
        nccl: bool,
    },
}

/// How far rank 0 is in an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationState {
    /// What is evaluated.
    pub part: EvaluationPart,
    /// The attack and its stage, for example `autoattack (apgd-t)`; empty at the end and for a certification.
    pub attack: String,
    /// Iteration of the running attack, counted from 1; 0 before the first, and for a certification.
    pub iteration: u64,
    /// Number of iterations of the running attack.
    pub iterations: u64,
    /// Number of images that this rank has evaluated.
    pub done: u64,
    /// Number of these images that are robust; absent for a certification.
    pub robust: Option<u64>,
    /// Number of images that this rank evaluates in total.
    pub total: u64,
    /// The work that is done; of a certification, in images.
    pub work: Work,
}

impl EvaluationState {
    /// The state of an evaluation of accuracies.
    pub fn new(part: EvaluationPart, progress: EvaluationProgress<'_>) -> Self {
        let EvaluationProgress { run, done, robust, total, work } = progress;
        let attack = match run {
            Some(run) if run.attack != run.stage => format!("{} ({})", run.attack, run.stage),
            Some(run) => run.attack.to_owned(),
            None => String::new(),
        };
        let (iteration, iterations) = run.map_or((0, 0), |run| (run.iteration, run.iterations));
        let (done, total) = (done as u64, total as u64);
        Self { part, attack, iteration, iterations, done, robust: Some(robust), total, work }
    }

    /// The state of a certification, whose work is images.
    pub fn certification(work: Work) -> Self {
        let Work { done, total, .. } = work;
        let (part, attack) = (EvaluationPart::Certification, String::new());
        Self { part, attack, iteration: 0, iterations: 0, done, robust: None, total, work }
    }

    /// Robust images, in percent of those that were evaluated.
    pub fn robust_percent(&self) -> Option<String> {
        let correct = self.robust.filter(|_| self.done > 0)?;
        Some(Count { correct, total: self.done }.percent())
    }
}

/// What a worker does. The times between its pulses differ from stage to stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It reads its data and its checkpoint, and joins the world.
    Starting,
    /// It trains.
    Training,
    /// It evaluates on the validation split.
    Validation,
    /// It evaluates on the test set.
    Evaluation,
    /// It certifies images of the test set.
    Certification,
}

impl From<EvaluationPart> for Stage {
    fn from(part: EvaluationPart) -> Self {
        match part {
            EvaluationPart::Validation => Self::Validation,
            EvaluationPart::Test => Self::Evaluation,
            EvaluationPart::Certification => Self::Certification,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "start",
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Evaluation => "evaluation",
            Self::Certification => "certification",
        })
    }
}

/// A sign of life of a worker. Sent by another thread than the one that computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Rises while the worker makes progress.
    pub count: u64,
    /// The operation in which it waits for other ranks or for its device; `None` while it computes.
    pub waits_in: Option<String>,
}

/// Exit status of a worker that left the world after a checkpoint.
pub const LEFT: u8 = 4;

/// A message of a worker to its agent. Only rank 0 sends `Progress`, `Timing`, `Accuracy`, `Best`, `Warning` and
/// `Evaluating`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Progress of the training, at most once a second.
    Progress(Progress),
    /// Breakdown of the time of an epoch.
    Timing(Timing),
    /// An evaluation on the validation split.
    Accuracy(Accuracy),
    /// The evaluation of the best weights so far.
    Best(Accuracy),
    /// A problem that does not end the job: a sentence without a full stop.
    Warning(String),
    /// Progress of an evaluation.
    Evaluating(EvaluationState),
    /// The fault of storage that the worker waits for, or `None` once it has passed.
    Storage(Option<StorageTrouble>),
    /// Whether the worker trains, so that it can write a checkpoint soon.
    Training(bool),
    /// The worker begins a stage.
    Stage(Stage),
    /// The worker runs: once a second.
    Pulse(Pulse),
    /// The worker wrote a checkpoint and leaves the world; [`Event::Failed`] follows.
    Left,
    /// The worker failed. A worker that succeeds exits with status 0 and sends nothing.
    Failed(Failure),
}
