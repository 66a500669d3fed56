//! `spec.training`: what to train and how. Immutable.
//!
//! The operator writes it to a ConfigMap as JSON. Its hash is in the name of the ConfigMap and in the results.
//! `dat-trainer run` reads it from a manifest. Unknown fields are rejected. [`Training::check`] checks the bounds of the
//! schema for manifests on a workstation, and rules that a schema cannot express.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::dataset::{Contents, Dataset};
use crate::epsilon::Epsilon;

mod additional;
mod attack;
mod check;
mod combinations;
mod communication;
mod data;
mod defaults;
mod evaluation;
pub(crate) mod model;
mod objective;
mod optimizer;
mod rules;
mod schedule;
mod source;
mod warnings;

pub use additional::{Additional, Labels, Nothing, Teacher};
pub use attack::{Attack, CatastrophicOverfitting, Fgsm, NFgsm, OverfittingResponse, Pgd, TrainingAttack};
pub use check::{InvalidTraining, Topology};
pub use communication::{Backend, Communication, Compression, Half, Int8};
pub use data::{Augmentation, CutMix, Data, RandomResizedCrop, Validation, Variation};
pub use evaluation::{
    ApgdCe, AutoAttack, Certify, DuringAttack, Evaluation, FinalAttack, FinalPgd, Square, Sweep, Target,
    Targeted, UnknownAttack,
};
pub use model::{Activation, Architecture, InitialWeights, Model, Normalization, Stem, UnknownArchitecture};
pub use objective::{CrossEntropy, Mart, Objective, Smoothing, Trades, WeightPerturbation};
pub use optimizer::{AdamW, Adaptation, Averaging, Ema, Lamb, Lars, Optimizer, Sgd};
pub use schedule::{Cosine, Cyclic, Decay, Piecewise, Scaling, ScalingRule, Schedule};
pub use source::{
    ClaimReference, FileSource, HttpSource, ImageSource, NamedFile, ObjectStoreSource, Source, VolumeFile,
    VolumeSource,
};

/// What to train and how. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = combinations::schema()))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Training {
    /// Seed of all random numbers but the validation split: initial weights, order of images, augmentation, attacks. From
    /// 0 to 9007199254740991; defaults to 0. The same seed, world size, number of threads and CPU or GPU model give bitwise
    /// identical weights.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub seed: u64,
    /// Network to train.
    pub model: Model,
    /// Images for training, validation and test.
    pub data: Data,
    /// Perturbations that the network must withstand.
    pub threat_model: ThreatModel,
    /// Attack that generates adversarial examples during training.
    pub attack: TrainingAttack,
    /// Response to catastrophic overfitting. Requires `attack.fgsm` or `attack.nFgsm`. Defaults to `response: Report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catastrophic_overfitting: Option<CatastrophicOverfitting>,
    /// Loss function. Defaults to `crossEntropy: {}`.
    #[serde(default)]
    pub objective: Objective,
    /// Adversarial weight perturbation: computes the loss at weights that are perturbed to increase it. Disabled if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_perturbation: Option<WeightPerturbation>,
    /// Training for randomised smoothing (Smooth-AT). Requires `objective.crossEntropy` and `attack.pgd`. Disabled if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<Smoothing>,
    /// Optimizer. Defaults to `sgd: {}`.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Averaging of weights. The validation split is evaluated with the trained and the averaged weights, and the more
    /// robust set can become the job's result. Disabled if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaging: Option<Averaging>,
    /// Epochs, batch size and learning rate.
    pub schedule: Schedule,
    /// Gradient exchange between ranks.
    #[serde(default, skip_serializing_if = "Communication::is_default")]
    pub communication: Communication,
    /// Frequency and retention of checkpoints.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Evaluations during training and at the end.
    #[serde(default)]
    pub evaluation: Evaluation,
}

impl Training {
    /// The spec as JSON for the trainer. Fields are in declaration order, so equal specs give equal bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| unreachable!("plain data serializes: {error}"))
    }

    /// Standard deviation of the noise for certification, if it is enabled.
    pub fn certified_sigma(&self) -> Option<f64> {
        let certify = self.evaluation.certify.as_ref()?;
        certify.sigma.or(self.smoothing.as_ref().map(|smoothing| smoothing.sigma))
    }

    /// SHA-256 of [`Training::to_json`] in hexadecimal.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.to_json()))
    }
}

/// Perturbations that the network must withstand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.norm != 'Linf' || !self.epsilon.matches('^[0-9]{1,6}(\\\\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?$') || (self.epsilon.contains('/') ? double(self.epsilon.split('/')[0]) / double(self.epsilon.split('/')[1]) : double(self.epsilon)) <= 1.0",
    "message": "epsilon must be at most 1 with norm Linf, in units of the pixel range [0, 1]; for example \"8/255\"",
    "fieldPath": ".epsilon"
}]))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThreatModel {
    /// Norm of the perturbation: Linf or L2. Defaults to Linf.
    #[serde(default)]
    pub norm: Norm,
    /// Maximum size of a perturbation, in units of the pixel range [0, 1]: a fraction or a decimal in quotes. It must
    /// be greater than 0, and at most 1 for Linf or 100 for L2. Usual values for Linf are "8/255" (CIFAR), "4/255"
    /// (ImageNet) and "0.1" (Fashion-MNIST); for L2, "0.5" (CIFAR).
    pub epsilon: Epsilon,
}

/// Norm of a perturbation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Norm {
    /// ℓ∞: the largest change of a pixel.
    #[default]
    Linf,
    /// ℓ2: the square root of the sum of the squared changes of all pixels.
    L2,
}

/// Frequency and retention of checkpoints. The best weights on the validation split are always kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Number of epochs between checkpoints, from 1 to 10000. Defaults to 1. The last epoch always writes a checkpoint.
    #[schemars(range(min = 1, max = 10_000))]
    pub every_epochs: u32,
    /// Number of seconds after a checkpoint until the next one within an epoch, from 1 to 86400. Defaults to 600. Training
    /// continues while it is written.
    #[schemars(range(min = 1, max = 86_400), extend("default" = 600))]
    #[serde(skip_serializing_if = "is_default_interval")]
    pub every_seconds: u32,
    /// Retention of checkpoints. The best weights on the validation split are always kept.
    pub keep: Keep,
}

/// Left out of the spec's JSON, whose hash names checkpoints that are older than the field.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_default_interval(seconds: &u32) -> bool {
    *seconds == Checkpoint::default().every_seconds
}

/// Retention of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Keep {
    /// Number of newest checkpoints between epochs to keep, from 1 to 1000. Defaults to 2. The newest checkpoint within the
    /// running epoch is kept as well.
    #[schemars(range(min = 1, max = 1000))]
    pub last: u32,
}
