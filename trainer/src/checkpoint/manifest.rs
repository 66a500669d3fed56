//! The manifest of a checkpoint: all of it except the tensors. Plain data.

use datjob_api::report::{AttackCount, Count};
use serde::{Deserialize, Serialize};

/// Where a training stands. Positions are ordered by epochs and steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// Completed epochs and steps.
    pub at: Steps,
    /// Completed optimizer steps of all epochs.
    pub step: u64,
    /// The step after which the optimizer's state began.
    pub optimizer_begin: u64,
    /// What the attack's step sizes are multiplied by.
    pub step_scale: f64,
    /// Seed of the validation split.
    pub validation_seed: u64,
    /// Whether the epoch has still to be validated.
    pub validation_pending: bool,
    /// What was measured in the completed steps of the running epoch; `None` between epochs.
    pub partial_epoch: Option<PartialEpoch>,
}

/// Completed epochs, and completed steps of the running one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steps {
    /// Completed epochs.
    pub epoch: u32,
    /// Completed steps of the epoch after them; 0 between epochs.
    pub step: u64,
}

/// What was measured in the completed steps of an epoch, on rank 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartialEpoch {
    /// Number of images of all ranks.
    pub images: u64,
    /// Number of steps whose loss is in the sum.
    pub measured: u64,
    /// Sum of their mean losses.
    pub loss: f64,
    /// Duration in seconds.
    pub seconds: f64,
    /// Seconds spent on generating adversarial examples.
    pub attack_seconds: f64,
    /// Seconds of communication that did not overlap with computation. 0 in checkpoints of older trainers.
    #[serde(default)]
    pub communication_seconds: f64,
    /// Seconds that the training loop waited for images. 0 in checkpoints of older trainers.
    #[serde(default)]
    pub data_seconds: f64,
    /// Number of bytes sent for gradients or weights. 0 in checkpoints of older trainers.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Number of steps in which they were sent. 0 in checkpoints of older trainers.
    #[serde(default)]
    pub sent_steps: u64,
}

/// A checkpoint, except its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Completed epochs.
    pub epoch: u32,
    /// Completed steps of the epoch after them; 0 between epochs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch_step: u64,
    /// Completed optimizer steps of all epochs.
    pub step: u64,
    /// The step after which the optimizer's state began.
    #[serde(default)]
    pub optimizer_begin: u64,
    /// What the attack's step sizes are multiplied by.
    #[serde(default = "unscaled")]
    pub step_scale: f64,
    /// Seed of the validation split; absent in checkpoints of trainers that drew it by the training's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seed: Option<u64>,
    /// Whether the epoch has still to be validated.
    #[serde(default)]
    pub validation_pending: bool,
    /// What was measured in the completed steps of the running epoch; absent between epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_epoch: Option<PartialEpoch>,
    /// SHA-256 of the training spec that it belongs to.
    pub training_hash: String,
    /// Fingerprint of the data set that was trained on; absent in checkpoints of trainers that took none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Fingerprint of the additional images and the source of their labels; absent without them, and in checkpoints of trainers that took
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_data: Option<String>,
    /// File of the tensors; absent in checkpoints of trainers that named it by its epoch alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of the file of tensors.
    pub sha256: String,
    /// The best weights so far.
    pub best: Option<Best>,
    /// What catastrophic overfitting is a fall from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting_reference: Option<OverfittingReference>,
}

impl Manifest {
    /// Completed epochs and steps.
    pub fn at(&self) -> Steps {
        Steps { epoch: self.epoch, step: self.epoch_step }
    }
}

fn unscaled() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The weights with the highest robust accuracy on the validation split so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Best {
    /// After which epoch they stood, counted from 1.
    pub epoch: u32,
    /// Their clean accuracy on the validation split.
    pub clean: Count,
    /// Their robust accuracy on the validation split.
    pub robust: AttackCount,
    /// Their accuracy under a single step, where training attacks with a single step.
    #[serde(default)]
    pub single_step: Option<Count>,
    /// Whether they are averaged.
    #[serde(default)]
    pub averaged: bool,
    /// Their file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
}

/// The highest robust accuracy so far on the validation split of the weights that are trained; averaged weights follow them
/// slowly. Only for single-step training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverfittingReference {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Robust accuracy.
    pub robust: AttackCount,
    /// Accuracy under a single step.
    pub single_step: Count,
}
