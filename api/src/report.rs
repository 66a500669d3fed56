//! The report of a trainer pod, as JSON at [`crate::contract::REPORT_PATH`].
//!
//! The operator pulls the report from pod 0. A trainer pod therefore needs no credentials for the cluster, and training
//! continues without an operator. The report is the current state of the job, not a stream of events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod evaluation;
mod preparation;
mod storage;

pub use evaluation::{EvaluationPart, EvaluationProgress};
pub use preparation::{Preparation, PreparationState, PreparationStep};
pub use storage::{StorageTrouble, WaitingForStorage};

/// The state of a job, as pod 0 knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// UID of the DatJob. The operator drops a report of another job.
    pub job_uid: String,
    /// UID of the pod. The operator drops a report of another pod.
    pub pod_uid: String,
    /// Attempt of the pod. The operator drops a report of another attempt.
    pub attempt: u32,
    /// Number of worlds that have formed for this job, over all attempts.
    pub generation: u32,
    /// Phase of the job.
    pub phase: Phase,
    /// Number of ranks in the world.
    pub world_size: u32,
    /// Number of pods that have joined the rendezvous and have their data.
    pub pods_joined: u32,
    /// Preparation of the data by the pods; absent while no pod prepares data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
    /// Seconds since a pod last made progress in preparing data, in steps of 10; absent if no pod prepared data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation_idle_seconds: Option<u32>,
    /// Progress of training; absent before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Timing of the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Progress of the running evaluation; absent while none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationProgress>,
    /// Latest evaluation on the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// Evaluation of the best weights so far. Absent before the first evaluation, and from trainers that do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Accuracy>,
    /// The latest evaluation that detected catastrophic overfitting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting: Option<Accuracy>,
    /// Problems that do not end the job, a sentence each, without a full stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Faults of storage that pods wait for; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<WaitingForStorage>,
    /// Final results on the test set; present exactly if `phase` is [`Phase::Succeeded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    /// Why the job failed (`phase` is [`Phase::Failed`]), why a pod cannot join, or why the last world ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Phase of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The agent downloads and unpacks the data.
    Preparing,
    /// Waiting for the other pods.
    Forming,
    /// A world trains, or evaluates on the validation split.
    Training,
    /// A world runs the final evaluation on the test set.
    Evaluating,
    /// The results are durable.
    Succeeded,
    /// The job failed; see `failure`.
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
    /// The fraction in percent with two decimals, rounded down, so that 79.999 % is not shown as 80.00.
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

    /// Whether the fraction is at least this many percent. Both are rounded to the nearest float, so 4034 of 10,000 reach
    /// 40.34.
    pub fn reaches(self, percent: f64) -> bool {
        self.correct as f64 * 100.0 / self.total.max(1) as f64 >= percent
    }

    /// The fraction, from 0 to 1; 0 without images.
    pub fn fraction(self) -> f64 {
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
    pub averaging: Option<RawAndAveraged>,
    /// Accuracy under a single attack step. Present if training attacks with a single step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_step: Option<Count>,
    /// Description of the catastrophic overfitting and of the response. Absent if not detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting: Option<String>,
}

/// Accuracies of the trained weights and of the averaged weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawAndAveraged {
    /// Accuracy of the trained weights on the clean images.
    pub raw_clean: Count,
    /// Accuracy of the trained weights on the attacked images.
    pub raw_robust: Count,
    /// Accuracy of the averaged weights on the clean images.
    pub averaged_clean: Count,
    /// Accuracy of the averaged weights on the attacked images.
    pub averaged_robust: Count,
}

/// Images of an accuracy: the validation split or the test set.
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

/// Robust accuracy under one attack of the final evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttackResult {
    /// Name of the attack, for example `pgd-50-10` (steps, restarts) or `autoattack`.
    pub attack: String,
    /// Number of images that withstood the attack.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
    /// Components of the attack, in order, with the images that withstood them and the previous ones. Empty for an attack
    /// with one component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageCount>,
    /// Reasons why the accuracy may be overestimated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl AttackResult {
    /// Only the counts.
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
    /// Creates the counts of an attack.
    pub fn new(attack: &str, Count { correct, total }: Count) -> Self {
        Self { attack: attack.to_owned(), correct, total }
    }

    /// Only the counts.
    pub fn count(&self) -> Count {
        Count { correct: self.correct, total: self.total }
    }
}

/// Final results: the best weights on the whole test set, and the data to reproduce them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Epoch of the weights, chosen on the validation split, counted from 1.
    pub best_epoch: u32,
    /// Whether the weights are averaged.
    #[serde(default)]
    pub averaged: bool,
    /// Clean accuracy on the test set.
    pub clean: Count,
    /// Robust accuracy on the test set, one entry per attack of `evaluation.final`.
    pub attacks: Vec<AttackResult>,
    /// Images that withstood every attack.
    pub worst_case: Count,
    /// Accuracy under PGD over radii and numbers of steps, if `evaluation.sweep` is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<SweepCount>,
    /// Certified accuracies of the smoothed network, if `evaluation.certify` is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certified: Vec<CertifiedCount>,
    /// Counts by class; absent in results of older trainers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_class: Option<CountsByClass>,
    /// Path of the weights on the checkpoint volume.
    pub weights: String,
    /// SHA-256 of the weights file.
    pub sha256: String,
    /// Seed of the training.
    pub seed: u64,
    /// SHA-256 of the training spec.
    pub training_hash: String,
    /// Version of the trainer.
    pub trainer_version: String,
    /// Version of libtorch.
    pub libtorch_version: String,
    /// Ranks in the last world.
    pub world_size: u32,
    /// CPU threads of each rank in the last world; 0 in results of older trainers.
    #[serde(default)]
    pub threads: u32,
    /// The distinct CPU or GPU models of the ranks in the last world; empty in results of older trainers.
    #[serde(default)]
    pub devices: Vec<String>,
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

/// Numbers of test images, one per class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsByClass {
    /// Number of evaluated images.
    pub total: Vec<u64>,
    /// Correctly classified without an attack.
    pub clean: Vec<u64>,
    /// Correctly classified under each attack, in the order of [`Results::attacks`].
    pub attacks: Vec<Vec<u64>>,
    /// Correctly classified under every attack.
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
    /// Path on the checkpoint volume of the worker's last log lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_file: Option<String>,
}

impl Failure {
    /// Creates a failure that is not specific to a rank.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, rank: None, message: message.into(), log_tail: Vec::new(), log_file: None }
    }

    /// Creates the failure of a rank.
    pub fn of_rank(reason: FailureReason, rank: u32, message: impl Into<String>) -> Self {
        Self { rank: Some(rank), ..Self::new(reason, message) }
    }
}

/// Kind of failure, which determines whether the job fails or the world re-forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureReason {
    /// Invalid or unsupported configuration: the job fails. After the start of training, the pod waits and retries.
    Configuration,
    /// Missing or corrupt data set or checkpoint: the job fails. After the start of training, the pod waits and retries.
    Data,
    /// Loss that is not finite: the job fails, because a retry with the same seed has the same result.
    Numerical,
    /// Lost connection to a peer or to the store: the world re-forms.
    Communication,
    /// Fault of storage that may pass, such as a full volume or a stale file handle: the world re-forms. It does not count
    /// against `lifecycle.maxRestarts`.
    Storage,
    /// Worker or GPU out of memory: the world re-forms.
    OutOfMemory,
    /// Failed, lost or unusable GPU: the world re-forms.
    Device,
    /// Accuracy below `evaluation.target`: the job fails.
    TargetMissed,
    /// Worker that exited without reporting a reason: the world re-forms.
    Crash,
    /// Worker that made no progress until its deadline, or ranks that all waited for each other: the world re-forms.
    Hang,
}

impl FailureReason {
    /// Whether a retry would fail in the same way.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Configuration | Self::Data | Self::Numerical | Self::TargetMissed)
    }

    /// Whether it is a failure of single pods if the job has trained before: their files or their image differ, and a person can
    /// fix that. It then counts against no limit.
    pub fn is_of_pod(self) -> bool {
        matches!(self, Self::Configuration | Self::Data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_reaches_its_own_percentage_and_none_above() {
        for (total, decimals) in [(1000_u64, 1), (10_000, 2), (50_000, 3), (100, 0)] {
            for correct in 0..total {
                let percent = |correct: u64| {
                    let scale = 10_u64.pow(decimals);
                    let scaled = correct * 100 * scale / total;
                    let (whole, part) = (scaled / scale, scaled % scale);
                    format!("{whole}.{part:0width$}", width = decimals as usize).parse::<f64>().unwrap()
                };
                let count = Count { correct, total };
                assert!(count.reaches(percent(correct)), "{count:?}");
                assert!(!count.reaches(percent(correct + 1)), "{count:?}");
            }
        }
    }
}
