//! What a trainer pod reports at [`crate::contract::REPORT_PATH`], as JSON.
//!
//! The operator pulls the report from pod 0: a trainer pod needs no credentials for the cluster, and an operator that
//! is down stops nothing. The report describes the whole job as it stands now; it is not a stream of events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a job, as its rank 0 sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// UID of the DatJob; a report with another one is dropped.
    pub job_uid: String,
    /// UID of the pod that answers; compared with the API server's record of the pod.
    pub pod_uid: String,
    /// The attempt that the pod belongs to; a report of an older one is dropped.
    pub attempt: u32,
    /// How often a world was formed for this job's UID, over all attempts; 0 before the first.
    pub generation: u32,
    /// What the job is doing.
    pub phase: Phase,
    /// How many ranks the world has.
    pub world_size: u32,
    /// How many pods are in touch with the rendezvous.
    pub pods_joined: u32,
    /// How far training is; absent before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Where the time of the last epoch went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// The newest evaluation on the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// The end result on the test set; present exactly when `phase` is [`Phase::Succeeded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    /// Why the job cannot go on (`phase` is [`Phase::Failed`]), or why the last world ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The agent prepares the data (downloads, unpacks).
    Preparing,
    /// Waiting for the other pods.
    Forming,
    /// A world is formed and trains (or evaluates on the validation split between epochs).
    Training,
    /// The final evaluation on the test set.
    Evaluating,
    /// All done, the results are durable.
    Succeeded,
    /// It cannot be done: see `failure`.
    Failed,
}

/// Progress of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Number of completed epochs.
    pub epoch: u32,
    /// Total number of epochs.
    pub epochs: u32,
    /// Number of completed optimizer steps.
    pub step: u64,
    /// Completed fraction of all steps, in percent.
    pub percent: u32,
    /// Training images per second over all ranks, excluding evaluations.
    pub images_per_second: f64,
    /// Estimated seconds until the end of the training, excluding evaluations.
    pub remaining_seconds: u64,
    /// Mean training loss of the current epoch so far, on the images of rank 0.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
}

/// Breakdown of the time of the last epoch, on rank 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// Duration of the epoch in seconds, excluding evaluations.
    pub epoch_seconds: f64,
    /// Seconds spent on generating adversarial examples.
    pub attack_seconds: f64,
    /// Seconds of communication that did not overlap with computation.
    pub communication_seconds: f64,
    /// Bytes that the rank sent per step for gradients, or for weights with `schedule.localSteps`.
    #[serde(default)]
    pub bytes_per_step: u64,
    /// Seconds that the training loop waited for images to be read and decoded; the device may have been busy
    /// meanwhile. 0 if the trainer does not report it.
    #[serde(default)]
    pub data_seconds: f64,
    /// Peak GPU memory of the rank's tensors, in bytes. Absent on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_gpu_memory_bytes: Option<u64>,
}

/// Number of correctly classified images and of evaluated images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Number of correctly classified images.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
}

impl Count {
    /// The share in percent with two decimals, rounded down: 79.999 % must not read as 80.00.
    ///
    /// ```
    /// use datjob_api::report::Count;
    /// assert_eq!(Count { correct: 8127, total: 10_000 }.percent(), "81.27");
    /// assert_eq!(Count { correct: 2, total: 3 }.percent(), "66.66");
    /// assert_eq!(Count { correct: 0, total: 0 }.percent(), "0.00");
    /// ```
    pub fn percent(self) -> String {
        let hundredths = u128::from(self.correct) * 10_000 / u128::from(self.total.max(1));
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    }

    /// The share, from 0 to 1; 0 where there are no images.
    pub fn share(self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }
}

/// Evaluation on the validation split after an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accuracy {
    /// Epoch after which the evaluation ran, counted from 1.
    pub epoch: u32,
    /// Images of the evaluation: validation or test.
    pub split: Split,
    /// Accuracy on the clean images.
    pub clean: Count,
    /// Accuracy on the attacked images.
    pub robust: AttackCount,
    /// Accuracies of both sets of weights, if weights are averaged. `clean` and `robust` are those of the more robust
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaging: Option<BothWeights>,
    /// Accuracy under a single attack step. Present if training attacks with a single step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_step: Option<Count>,
    /// Description of the catastrophic overfitting and of the response. Absent if not detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting: Option<String>,
}

/// Accuracies of the trained weights and of the averaged weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BothWeights {
    /// Accuracy of the trained weights on the clean images.
    pub raw_clean: Count,
    /// Accuracy of the trained weights on the attacked images.
    pub raw_robust: Count,
    /// Accuracy of the averaged weights on the clean images.
    pub averaged_clean: Count,
    /// Accuracy of the averaged weights on the attacked images.
    pub averaged_robust: Count,
}

/// Images of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Training images that are held out; they select the best weights.
    Validation,
    /// Test set; it selects nothing.
    Test,
}

/// Robust accuracy under one attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttackCount {
    /// Name of the attack, for example `pgd-20` (20 steps) or `pgd-50-10` (50 steps, 10 restarts).
    pub attack: String,
    /// Number of images that withstood the attack.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
}

/// Robust accuracy under one attack at the end, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttackResult {
    /// The attack, for example `pgd-50-10` (steps, restarts) or `autoattack`.
    pub attack: String,
    /// Images that stayed correctly classified under it.
    pub correct: u64,
    /// Images in all.
    pub total: u64,
    /// Its parts, in order, each with the images that withstood it and those before it; empty where it has one part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageCount>,
    /// Why the figure may be too high, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl AttackResult {
    /// The counts alone.
    pub fn count(&self) -> Count {
        Count { correct: self.correct, total: self.total }
    }
}

/// Number of images that withstood a component of an attack and the previous ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageCount {
    /// Name of the component, for example `apgd-ce`.
    pub name: String,
    /// Number of images that withstood this component and the previous ones.
    pub correct: u64,
}

impl AttackCount {
    /// The counts of an attack.
    pub fn new(attack: &str, Count { correct, total }: Count) -> Self {
        Self { attack: attack.to_owned(), correct, total }
    }

    /// The counts alone.
    pub fn count(&self) -> Count {
        Count { correct: self.correct, total: self.total }
    }
}

/// The end result: the best checkpoint on the whole test set, and what is needed to get it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// The epoch whose weights were chosen on the validation split, counted from 1.
    pub best_epoch: u32,
    /// Whether these are averaged weights.
    #[serde(default)]
    pub averaged: bool,
    /// Clean accuracy on the test set.
    pub clean: Count,
    /// Robust accuracy on the test set, an entry for each attack of `evaluation.final`.
    pub attacks: Vec<AttackResult>,
    /// Images that stayed correct under every attack; the same as the only entry where there is one.
    pub worst_case: Count,
    /// Accuracy under PGD against its radius and its number of steps; empty where none was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<SweepCount>,
    /// Images whose label the smoothed network certainly gives within a radius; empty where nothing was certified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certified: Vec<CertifiedCount>,
    /// The same by class; absent where the trainer is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_class: Option<CountsByClass>,
    /// Path of the weights below the checkpoint volume.
    pub weights: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// The seed.
    pub seed: u64,
    /// SHA-256 of the training spec.
    pub training_hash: String,
    /// Version of the trainer.
    pub trainer_version: String,
    /// Version of libtorch.
    pub libtorch_version: String,
    /// Ranks in the last world.
    pub world_size: u32,
    /// CPU threads of each rank in the last world. Sums over threads round by their number: figures are equal bit by
    /// bit only where it is equal too. 0 where the trainer is older than this field.
    #[serde(default)]
    pub threads: u32,
}

/// Accuracy under PGD for one radius and one number of steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SweepCount {
    /// Radius, as written in the spec.
    pub epsilon: String,
    /// Number of steps.
    pub steps: u32,
    /// Number of images that withstood the attack.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
}

/// Certified accuracy at one radius.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertifiedCount {
    /// Radius in ℓ2, in units of the pixel range [0, 1], for example "0.25".
    pub radius: String,
    /// Number of images whose label is certified within the radius.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
}

/// Numbers of test images, one for each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsByClass {
    /// Images in all.
    pub total: Vec<u64>,
    /// Correct as they are.
    pub clean: Vec<u64>,
    /// Correct under each attack, in the order of [`Results::attacks`].
    pub attacks: Vec<Vec<u64>>,
    /// Correct under every attack.
    pub worst_case: Vec<u64>,
}

/// Failure of the job or of a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Kind of failure.
    pub reason: FailureReason,
    /// Rank that failed. Absent if the failure is not specific to a rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// What failed, why, and how to fix it.
    pub message: String,
    /// Last lines of the failed worker's log, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// Kind of failure, which determines whether the job fails or the world re-forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureReason {
    /// Invalid or unsupported configuration: the job fails.
    Configuration,
    /// Missing or corrupt data set or checkpoint: the job fails.
    Data,
    /// Loss that is not finite: the job fails, because a retry with the same seed has the same result.
    Numerical,
    /// Lost connection to a peer or to the store: the world re-forms.
    Communication,
    /// Worker or GPU out of memory: the world re-forms.
    OutOfMemory,
    /// Failed, lost or unusable GPU: the world re-forms.
    Device,
    /// Accuracy below `evaluation.target`: the job fails.
    TargetMissed,
    /// Worker that exited without reporting a reason: the world re-forms.
    Crash,
}

impl FailureReason {
    /// Whether trying again is pointless.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Configuration | Self::Data | Self::Numerical | Self::TargetMissed)
    }
}
