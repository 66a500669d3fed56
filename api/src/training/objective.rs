//! `objective`, `weightPerturbation` and `smoothing`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Loss function. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Objective {
    /// Cross-entropy on adversarial examples, plus `cleanWeight` times cross-entropy on clean images.
    CrossEntropy(CrossEntropy),
    /// TRADES (Zhang et al.): cross-entropy on clean images, plus `beta` times the KL divergence between the
    /// predictions on clean images and on adversarial examples. The attack maximizes this divergence. Requires
    /// `attack.pgd`.
    Trades(Trades),
    /// MART (Wang et al.): boosted cross-entropy on adversarial examples, plus `beta` times the KL divergence, weighted
    /// by the network's uncertainty about the clean image. Requires `attack.pgd`.
    Mart(Mart),
}

impl Default for Objective {
    fn default() -> Self {
        Self::CrossEntropy(CrossEntropy::default())
    }
}

/// Cross-entropy on adversarial examples and, weighted, on clean images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// Weight of the loss on clean images (λ of the paper), from 0 to 100. Defaults to 0. The paper's code uses 1 for
    /// PGD and 0 for FGSM.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub clean_weight: f64,
    /// Fraction of the target distribution that is spread over all classes, from 0 to 0.9. Defaults to 0. The attack
    /// uses no label smoothing.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub label_smoothing: f64,
}

/// Left out of the spec's JSON, whose hash names checkpoints that are older than the field.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// TRADES (Zhang et al., "Theoretically principled trade-off between robustness and accuracy", arXiv 1901.08573).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Trades {
    /// Weight of the divergence (1/λ of the paper), from 0 to 1000. Defaults to 6.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub beta: f64,
}

impl Default for Trades {
    fn default() -> Self {
        Self { beta: 6.0 }
    }
}

/// MART (Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mart {
    /// Weight of the divergence (λ of the paper), from 0 to 1000. Defaults to 5.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub beta: f64,
}

impl Default for Mart {
    fn default() -> Self {
        Self { beta: 5.0 }
    }
}

/// Adversarial weight perturbation (Wu et al., "Adversarial weight perturbation helps robust generalization", arXiv
/// 2004.05884).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WeightPerturbation {
    /// Norm of the perturbation of a layer's weights, relative to the norm of the weights, from 0 to 1. Defaults to
    /// 0.005 with `objective.trades`, otherwise 0.01.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: Option<f64>,
}

impl WeightPerturbation {
    /// The size of the perturbation; its default depends on the objective (Wu et al., section 5).
    pub fn gamma(&self, objective: &Objective) -> f64 {
        self.gamma.unwrap_or(if matches!(objective, Objective::Trades(_)) { 0.005 } else { 0.01 })
    }
}

/// Training for randomised smoothing (Smooth-AT): copies with Gaussian noise replace each image in attack and loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Smoothing {
    /// Standard deviation of the noise, in units of the pixel range [0, 1], from 0.001 to 10. Usual values are 0.12,
    /// 0.25, 0.5 and 1.
    #[schemars(range(min = 0.001, max = 10.0))]
    pub sigma: f64,
    /// Number of noisy copies of each image, from 1 to 64. Defaults to 2. Time and memory of a step grow in proportion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub samples: Option<u32>,
}

impl Smoothing {
    /// Number of copies of each image, with the default filled in.
    pub fn samples(&self) -> u32 {
        self.samples.unwrap_or(2)
    }
}
