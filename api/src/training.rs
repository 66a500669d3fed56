//! `spec.training`: what is trained and how.
//!
//! One immutable struct with one meaning: the operator writes it into a ConfigMap as JSON, its hash names that
//! ConfigMap and stands in the results, and `dat-trainer run` reads the same from a manifest. Unknown fields are
//! refused everywhere. Bounds stand in the schema; [`Training::check`] repeats them for manifests that never met an
//! API server, with what no schema can say.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::dataset::{Contents, Dataset};
use crate::epsilon::Epsilon;

mod additional;
mod attack;
mod check;
mod communication;
mod data;
mod defaults;
mod evaluation;
pub(crate) mod model;
mod objective;
mod optimizer;
mod schedule;
mod source;

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

/// What is trained and how. Never changes after the job was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crd", schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self == oldSelf",
        "message": "spec.training never changes: create another DatJob for another training"
    },
    {
        "rule": "self.threatModel.norm != 'Linf' || [has(self.attack.pgd) && has(self.attack.pgd.stepSize) ? self.attack.pgd.stepSize : '0', has(self.attack.fgsm) && has(self.attack.fgsm.stepSize) ? self.attack.fgsm.stepSize : '0', has(self.attack.nFgsm) && has(self.attack.nFgsm.stepSize) ? self.attack.nFgsm.stepSize : '0'].all(size, !size.matches('^[0-9]{1,6}(\\\\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?$') || (size.contains('/') ? double(size.split('/')[0]) / double(size.split('/')[1]) : double(size)) <= 1.0)",
        "message": "spec.training.attack.*.stepSize: with the norm Linf it is at most 1: pixels lie in [0, 1], write for example \"2/255\"",
        "fieldPath": ".attack"
    }
])))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Training {
    /// Seed of all that is random: initial weights, order, augmentation, attacks. The same seed on the same world
    /// gives the same run, bit by bit.
    #[serde(default)]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 9_007_199_254_740_991_i64)))]
    pub seed: u64,
    /// The network.
    pub model: Model,
    /// The images.
    pub data: Data,
    /// Against which perturbations the network is to be robust.
    pub threat_model: ThreatModel,
    /// How adversarial examples are made during training.
    pub attack: TrainingAttack,
    /// What is done where training overfits to a single-step attack; Report where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catastrophic_overfitting: Option<CatastrophicOverfitting>,
    /// The loss.
    #[serde(default)]
    pub objective: Objective,
    /// Adversarial weight perturbation: where present, the loss is taken at weights that were moved to make it larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_perturbation: Option<WeightPerturbation>,
    /// Training for randomised smoothing (Smooth-AT); goes with `objective.crossEntropy` and `attack.pgd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<Smoothing>,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Averaged weights: where present, evaluations on the validation split measure them too, and the better of the two
    /// can become the job's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaging: Option<Averaging>,
    /// Epochs, batch size, learning rate over time.
    pub schedule: Schedule,
    /// How ranks talk.
    #[serde(default, skip_serializing_if = "Communication::is_default")]
    pub communication: Communication,
    /// When checkpoints are written and which are kept.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// When and how accuracy is measured.
    #[serde(default)]
    pub evaluation: Evaluation,
}

impl Training {
    /// The spec as the JSON that the trainer reads: fields in declaration order, so equal specs give equal bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self)
            .unwrap_or_else(|error| unreachable!("plain data serializes: {error}"))
    }

    /// Deviation of the noise under which the network is certified, where it is.
    pub fn certified_sigma(&self) -> Option<f64> {
        let certify = self.evaluation.certify.as_ref()?;
        certify.sigma.or(self.smoothing.as_ref().map(|smoothing| smoothing.sigma))
    }

    /// SHA-256 of [`Training::to_json`] in hexadecimal.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.to_json()))
    }
}

/// Against which perturbations the network is to be robust.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crd", schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.norm != 'Linf' || !self.epsilon.matches('^[0-9]{1,6}(\\\\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?$') || (self.epsilon.contains('/') ? double(self.epsilon.split('/')[0]) / double(self.epsilon.split('/')[1]) : double(self.epsilon)) <= 1.0",
    "message": "with the norm Linf it is at most 1: pixels lie in [0, 1], write for example \"8/255\"",
    "fieldPath": ".epsilon"
}])))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThreatModel {
    /// The norm that bounds a perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// The largest perturbation, in units of the pixel range [0, 1]: a fraction or a decimal in quotes. Linf: for example
    /// "8/255" (customary for CIFAR), "4/255" (ImageNet) or "0.1" (Fashion-MNIST), more than 0, at most 1. L2: for example
    /// "0.5" (CIFAR), more than 0, at most 100.
    pub epsilon: Epsilon,
}

/// The norm that bounds a perturbation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Norm {
    /// ℓ∞: no pixel changes by more than epsilon.
    #[default]
    Linf,
    /// ℓ2: the root of the sum of all pixels' squared changes is at most epsilon.
    L2,
}

/// When checkpoints are written and which are kept. The best weights on the validation split are always kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Checkpoint {
    /// A checkpoint after every so many epochs, and after the last.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 10_000)))]
    pub every_epochs: u32,
    /// Which are kept.
    pub keep: Keep,
}

/// Which checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Keep {
    /// The newest ones.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub last: u32,
}
