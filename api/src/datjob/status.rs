//! Status of a DatJob.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lenient::known_or_default;
use crate::report::{
    Accuracy, AttackResult, CertifiedCount, Count, EvaluationProgress, Failure, Progress, Split, StageCount,
    SweepCount, Timing,
};

/// Observed state of the job. `conditions` are for machines; the strings are for people and printer columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatJobStatus {
    /// Generation of the spec that this status describes. -1 until the operator has processed the job.
    pub observed_generation: i64,
    /// Installation of the operator that manages the job, as NAMESPACE/NAME. The others leave it alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub managed_by: String,
    /// Conditions of the job: Ready, Finished, Complete, Failed, kstatus's Reconciling and Stalled, and
    /// CatastrophicOverfitting and StorageTrouble once they were detected.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Summary for people: Pending, Starting, Running, Evaluating, Restarting, Complete or Failed.
    pub state: String,
    /// Number of starts from zero pods.
    pub attempt: u32,
    /// Number of worlds formed so far; 0 before the first.
    pub generation: u32,
    /// Value of `generation` at the start of the current attempt. Each world after the attempt's first one is a restart.
    pub generation_at_start: u32,
    /// Restart counters.
    pub restarts: Restarts,
    /// The newest world. Absent until the first world of the job has formed.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub world: Option<World>,
    /// Image of the trainer in the running pod 0, as its spec names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Identifier of that image on its node; for an image of a registry, its digest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_id: String,
    /// Time at which the operator first saw a running pod of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Time at which the job completed or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Time since which the pods of the current attempt have been waiting for a world. Absent while a world is formed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// Ready pods and desired pods, for example "5/6".
    pub workers: String,
    /// Completed epochs and total epochs, for example "42/100".
    pub epoch: String,
    /// Progress of the training.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub progress: Option<Progress>,
    /// Breakdown of the time of the last epoch.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub timing: Option<Timing>,
    /// Progress of the running evaluation. Absent while none runs.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub evaluation: Option<EvaluationProgress>,
    /// Latest clean accuracy in percent: on the validation split during training, on the test set at the end.
    pub clean: String,
    /// Latest robust accuracy in percent, on the same images as `clean`. At the end, the worst case over all attacks.
    pub robust: String,
    /// Images of `clean` and `robust`: the validation split or the test set.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub split: Option<Split>,
    /// Latest evaluation on the validation split.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub accuracy: Option<Accuracy>,
    /// Evaluation on the validation split with the highest robust accuracy so far.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub best: Option<Accuracy>,
    /// Problems that did not end the job, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Results on the test set. Absent until the final evaluation is complete.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub results: Option<ResultsStatus>,
    /// Reason why the job failed, or why its last world ended.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_or_default")]
    pub failure: Option<Failure>,
}

impl DatJobStatus {
    /// The attempt to run; 1 for a job without status.
    pub fn desired_attempt(status: Option<&Self>) -> u32 {
        status.map_or(1, |status| status.attempt.max(1))
    }
}

/// Restart counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Restarts {
    /// Number of restarts: failures and disruptions.
    pub total: u32,
    /// Number of restarts after a failure: a worker or an agent ended, or no world formed although all pods ran.
    pub failures: u32,
    /// Number of restarts after a disruption: a pod was deleted, evicted or preempted, its node was lost, or its storage had a
    /// fault that may pass.
    pub disruptions: u32,
    /// Failures since the job last made progress: a completed epoch, or an hour of training. `lifecycle.maxRestarts` limits
    /// them.
    pub recent_failures: u32,
}

/// A world of ranks that train together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Time at which the operator saw that the world had formed.
    pub since: Time,
    /// Hash of the UIDs of its pods. A world with other pods follows a disruption.
    pub pods: String,
    /// Highest number of epochs that the job had completed before.
    pub epochs: u32,
}

/// Results on the test set, with the weights that were selected on the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultsStatus {
    /// Epoch of the selected weights, counted from 1.
    pub best_epoch: u32,
    /// Whether the selected weights are averaged weights.
    #[serde(default)]
    pub averaged: bool,
    /// Accuracy on the clean images.
    pub clean: TestCount,
    /// Accuracy under each attack of `evaluation.final`.
    pub attacks: Vec<TestAttack>,
    /// Accuracy under all attacks: an image counts if it withstands every attack.
    pub worst_case: TestCount,
    /// Accuracy under PGD at each point of `evaluation.sweep`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<SweepCount>,
    /// Certified accuracy of the smoothed network at each radius.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certified: Vec<CertifiedCount>,
    /// Path of the weights file (safetensors) on the checkpoint volume.
    pub weights: String,
    /// SHA-256 of the weights file, in hexadecimal.
    pub sha256: String,
    /// Seed of the training.
    pub seed: u64,
    /// SHA-256 of the training spec, in hexadecimal.
    pub training_hash: String,
    /// Version of the trainer.
    pub trainer_version: String,
    /// Version of libtorch.
    pub libtorch_version: String,
    /// Number of ranks in the last world.
    pub world_size: u32,
    /// Number of CPU threads per rank.
    #[serde(default)]
    pub threads: u32,
    /// CPU or GPU models of the ranks. Results are bitwise reproducible only on the same model, with the same number of
    /// threads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// Number of correctly classified images, and the accuracy in percent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestCount {
    /// Number of correctly classified images.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
    /// Accuracy in percent with two decimals, rounded down.
    pub percent: String,
}

impl From<Count> for TestCount {
    fn from(count: Count) -> Self {
        Self { correct: count.correct, total: count.total, percent: count.percent() }
    }
}

/// Robust accuracy under one attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestAttack {
    /// Name of the attack, for example `pgd-50-10` (50 steps, 10 restarts).
    pub name: String,
    /// Number of images that withstood the attack.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
    /// Accuracy in percent with two decimals, rounded down.
    pub percent: String,
    /// Components of the attack in order, each with the number of images that withstood it and the previous ones.
    /// Absent for attacks with one component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageCount>,
    /// Reasons why the accuracy may be too high.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl From<AttackResult> for TestAttack {
    fn from(attack: AttackResult) -> Self {
        let percent = attack.count().percent();
        let AttackResult { attack: name, correct, total, stages, warnings } = attack;
        Self { name, correct, total, percent, stages, warnings }
    }
}
