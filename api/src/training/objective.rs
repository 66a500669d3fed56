use serde::{Deserialize, Serialize};

/// The loss. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Objective {
    /// Cross-entropy on adversarial examples, plus `cleanWeight` times cross-entropy on the images as they are.
    CrossEntropy(CrossEntropy),
    /// TRADES (Zhang et al.): cross-entropy on the images plus `beta` times the divergence of the predictions on
    /// adversarial examples from those on the images. The attack makes that divergence large; attack must be pgd.
    Trades(Trades),
    /// MART (Wang et al.): boosted cross-entropy on adversarial examples plus `beta` times that divergence, weighted by how
    /// unsure the network is about the image. attack must be pgd.
    Mart(Mart),
}

impl Default for Objective {
    fn default() -> Self {
        Self::CrossEntropy(CrossEntropy::default())
    }
}

/// Cross-entropy on adversarial examples and, weighted, on clean images (λ in the paper).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// Weight of the clean images' loss; the paper's published code has 1 for PGD and 0 for FGSM.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 100.0)))]
    pub clean_weight: f64,
    /// Share of the target that is spread over all classes; 0 for none. The attack's own loss has none.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.9)))]
    pub label_smoothing: f64,
}

/// Left out of the spec's JSON, whose hash names checkpoints that are older than the field.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// TRADES (Zhang et al., "Theoretically principled trade-off between robustness and accuracy", arXiv 1901.08573).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Trades {
    /// Weight of the divergence (1/λ of the paper).
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1000.0)))]
    pub beta: f64,
}

impl Default for Trades {
    fn default() -> Self {
        Self { beta: 6.0 }
    }
}

/// MART (Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mart {
    /// Weight of the divergence (λ of the paper).
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1000.0)))]
    pub beta: f64,
}

impl Default for Mart {
    fn default() -> Self {
        Self { beta: 5.0 }
    }
}

/// Adversarial weight perturbation (Wu et al., "Adversarial weight perturbation helps robust generalization", arXiv
/// 2004.05884).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WeightPerturbation {
    /// Length of the perturbation of a layer's weights, relative to theirs; where absent 0.005 with `objective.trades`, 0.01
    /// otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub gamma: Option<f64>,
}

impl WeightPerturbation {
    /// The length beside this objective, with the default filled in (Wu et al., section 5).
    pub fn gamma(&self, objective: &Objective) -> f64 {
        self.gamma.unwrap_or(if matches!(objective, Objective::Trades(_)) { 0.005 } else { 0.01 })
    }
}

/// Training for randomised smoothing: each image stands for copies with Gaussian noise, in attack and loss (Smooth-AT).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Smoothing {
    /// Standard deviation of the noise, in units of the pixel range; 0.12, 0.25, 0.5 and 1 are customary.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.001, max = 10.0)))]
    pub sigma: f64,
    /// Copies of each image; 2 where absent. A step needs so many times the memory and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 64)))]
    pub samples: Option<u32>,
}

impl Smoothing {
    /// Copies of each image, with the default filled in.
    pub fn samples(&self) -> u32 {
        self.samples.unwrap_or(2)
    }
}
