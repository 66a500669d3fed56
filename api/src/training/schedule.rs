//! `schedule`: epochs, batch size and learning rate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Rule;

/// Epochs, batch size and learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Number of passes over the training images, from 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u32,
    /// Maximum number of images per step over all ranks: from 1 to 1000000, at least the world size. Defaults to 128.
    /// Steps of an epoch differ by at most one image, and an epoch uses every image exactly once.
    #[serde(default = "super::defaults::batch_size")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: u32,
    /// Number of epochs in which the learning rate rises linearly from 0: from 0 to 10000, at most `epochs`. Defaults
    /// to 0. Requires `decay.piecewise` or `decay.cosine`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub warmup_epochs: u32,
    /// Learning rate schedule. Defaults to one cycle (`cyclic: {}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<Decay>,
    /// Scaling of the optimizer's learning rate with the batch size. No scaling if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Local SGD (Stich, arXiv 1805.09767): number of steps that each rank takes on its part of the batch before the
    /// ranks average their weights, from 1 to 1000. Defaults to 1, which averages gradients in every step.
    #[serde(default, skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub local_steps: Option<u32>,
}

/// Whether ranks average in every step, which is the default.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(local_steps: &Option<u32>) -> bool {
    matches!(local_steps, None | Some(1))
}

/// Scaling of the learning rate with the batch size. The optimizer's learning rate applies to `baseBatchSize` images
/// per step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scaling {
    /// Scaling rule: Linear (usual for SGD and LARS) or SquareRoot (usual for LAMB and AdamW).
    pub rule: ScalingRule,
    /// Batch size to which the optimizer's learning rate applies, from 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub base_batch_size: u32,
}

/// Scaling rule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingRule {
    /// In proportion to the batch size (Goyal et al., arXiv 1706.02677).
    Linear,
    /// In proportion to the square root of the batch size.
    SquareRoot,
}

/// Learning rate schedule. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Decay {
    /// Constant learning rate that is multiplied by `factor` after the epochs in `at`.
    Piecewise(Piecewise),
    /// One cycle: linear from 0 to the optimizer's learning rate, then linear to 0.
    Cyclic(Cyclic),
    /// Half a cosine from the optimizer's learning rate to `floor`, after the warm-up (Loshchilov and Hutter, arXiv
    /// 1608.03983).
    Cosine(Cosine),
}

/// Half a cosine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cosine {
    /// Final learning rate as a fraction of the maximum, from 0 to 1. Defaults to 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub floor: f64,
}

/// Constant learning rate that is multiplied after given epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Piecewise {
    /// Epochs after which the learning rate is multiplied, at most 64, each from 1 to 100000. If empty, it stays
    /// constant.
    #[schemars(length(max = 64), inner(range(min = 1, max = 100_000)))]
    pub at: Vec<u32>,
    /// Factor for the learning rate, from 0 to 1. Defaults to 0.1.
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub factor: f64,
}

fn tenth() -> f64 {
    0.1
}

/// One cycle of the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cyclic {
    /// Position of the maximum as a fraction of all steps, from 0 to 1. Defaults to 0.4.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub peak: f64,
}

impl Default for Cyclic {
    fn default() -> Self {
        Self { peak: 0.4 }
    }
}

/// Rules of the schedule.
pub(super) const RULES: [Rule<Schedule>; 1] = [Rule {
    field: "warmupEpochs",
    problem: "warmupEpochs must be at most epochs and requires decay.piecewise or decay.cosine, because decay.cyclic has no \
              separate warm-up",
    cel: Some(
        "self.warmupEpochs == 0 || (self.warmupEpochs <= self.epochs && has(self.decay) && !has(self.decay.cyclic))",
    ),
    holds: |schedule| {
        schedule.warmup_epochs == 0
            || (schedule.warmup_epochs <= schedule.epochs && !matches!(schedule.decay(), Decay::Cyclic(_)))
    },
}];
