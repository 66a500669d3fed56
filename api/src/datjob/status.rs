use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::{
    Accuracy, AttackResult, CertifiedCount, Count, Failure, Progress, StageCount, SweepCount, Timing,
};

/// What is known of a job. Machines read `conditions`; the strings are for people and printer columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatJobStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has looked at the job.
    pub observed_generation: i64,
    /// Ready, Finished, Complete, Failed, kstatus's Reconciling and Stalled, and CatastrophicOverfitting where it was
    /// seen; each with a reason and a sentence.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// One word for people: Pending, Starting, Running, Evaluating, Restarting, Complete or Failed.
    pub state: String,
    /// How often the whole world was started from zero pods.
    pub attempt: u32,
    /// How often a world was formed; 0 before the first.
    pub generation: u32,
    /// `generation` when the current attempt began: each world after the attempt's first is a restart.
    pub generation_at_start: u32,
    /// What was restarted.
    pub restarts: Restarts,
    /// When the job's pods first started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the job completed or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Since when the pods of this attempt have waited for a world; absent while one is formed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// Pods of the job that are ready, and wanted: "5/6".
    pub workers: String,
    /// Completed epochs and epochs in all: "42/100".
    pub epoch: String,
    /// How far training is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Where the time of the last epoch went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Clean accuracy in percent, the newest: on the validation split while training, on the test set at the end.
    pub clean: String,
    /// Robust accuracy in percent, likewise; at the end the worst case over all attacks.
    pub robust: String,
    /// The newest evaluation on the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// The evaluation on the validation split with the highest robust accuracy so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Accuracy>,
    /// The end result on the test set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsStatus>,
    /// Why the job failed, or why its last world ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl DatJobStatus {
    /// The attempt that is to run; also of a job that the operator has not looked at yet.
    pub fn wanted_attempt(status: Option<&Self>) -> u32 {
        status.map_or(1, |status| status.attempt.max(1))
    }
}

/// What was restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Restarts {
    /// Worlds that had to form again, and tries after a missed startup deadline.
    pub total: u32,
}

/// The end result on the test set, from the weights that the validation split chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultsStatus {
    /// The epoch whose weights were chosen, counted from 1.
    pub best_epoch: u32,
    /// Whether these are averaged weights.
    #[serde(default)]
    pub averaged: bool,
    /// Accuracy on the images as they are.
    pub clean: TestCount,
    /// Accuracy under each attack of `evaluation.final`.
    pub attacks: Vec<TestAttack>,
    /// Images that withstood every attack.
    pub worst_case: TestCount,
    /// Accuracy under PGD against its radius and its number of steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<SweepCount>,
    /// Images whose label the smoothed network certainly gives within a radius.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certified: Vec<CertifiedCount>,
    /// Path of the weights (safetensors) below the checkpoint volume.
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
    /// CPU threads of each rank: figures are equal bit by bit only where it is equal too.
    #[serde(default)]
    pub threads: u32,
}

/// Counts, and the share in percent with two decimals, rounded down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestCount {
    /// Images classified correctly.
    pub correct: u64,
    /// Images in all.
    pub total: u64,
    /// The share in percent.
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
    /// The attack, for example `pgd-50-10` (steps, restarts).
    pub name: String,
    /// Images that stayed correctly classified under it.
    pub correct: u64,
    /// Images in all.
    pub total: u64,
    /// The share in percent.
    pub percent: String,
    /// Its parts, in order, each with the images that withstood it and those before it; absent where it has one part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageCount>,
    /// Why the figure may be too high, a sentence each.
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
