use serde::{Deserialize, Serialize};

/// The optimizer. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Adam with decoupled weight decay (Loshchilov and Hutter).
    AdamW(AdamW),
    /// LAMB (You et al.): Adam's direction with a rate for each layer; with `adaptation: Paper` the layer-wise adaptive
    /// learning rate of distributed adversarial training. For large batches.
    Lamb(Lamb),
    /// LARS (You et al.): momentum with a rate for each layer. For large batches.
    Lars(Lars),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Sgd(Sgd::default())
    }
}

impl Optimizer {
    /// The highest learning rate of the schedule, before it is scaled to the batch.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd(spec) => spec.learning_rate,
            Self::AdamW(spec) => spec.learning_rate,
            Self::Lamb(spec) => spec.learning_rate,
            Self::Lars(spec) => spec.learning_rate,
        }
    }
}

/// Stochastic gradient descent with momentum, as PyTorch defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sgd {
    /// The highest learning rate of the schedule.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1000.0)))]
    pub learning_rate: f64,
    /// Momentum.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.9999)))]
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// ℓ2 penalty on all parameters, added to the gradient.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { learning_rate: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5e-4 }
    }
}

/// Adam with decoupled weight decay, as PyTorch defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdamW {
    /// The highest learning rate of the schedule.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1000.0)))]
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.999_999)))]
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.999_999)))]
    pub beta2: f64,
    /// Added to the root of the latter; 0.00000001 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub epsilon: Option<f64>,
    /// Share of a parameter that is taken off, times the learning rate.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 100.0)))]
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { learning_rate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: None, weight_decay: 0.01 }
    }
}

impl AdamW {
    /// What is added to the root, with the default filled in. (No default of the schema: YAML writes numbers as small as
    /// this with an exponent, which some readers take for a string.)
    pub fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(1e-8)
    }
}

/// Which parameters a layer-wise rate and weight decay are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Adaptation {
    /// Weights. Biases and BatchNorm's parameters, those of one dimension, have the plain rate and no weight decay, as is
    /// customary.
    #[default]
    Customary,
    /// All parameters, as the paper writes it.
    Paper,
}

/// LAMB (You et al., "Large batch optimization for deep learning", arXiv 1904.00962).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lamb {
    /// The highest learning rate of the schedule.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1000.0)))]
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.999_999)))]
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.999_999)))]
    pub beta2: f64,
    /// Added to the root of the latter; 0.000001 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub epsilon: Option<f64>,
    /// Share of a parameter that is added to its direction.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 100.0)))]
    pub weight_decay: f64,
    /// Which parameters have a rate of their own and weight decay: Customary (weights) or Paper (all).
    pub adaptation: Adaptation,
}

impl Default for Lamb {
    fn default() -> Self {
        let adaptation = Adaptation::default();
        Self { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: None, weight_decay: 1e-4, adaptation }
    }
}

impl Lamb {
    /// What is added to the root, with the default filled in.
    pub fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(1e-6)
    }
}

/// LARS (You et al., "Large batch training of convolutional networks", arXiv 1708.03888).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lars {
    /// The highest learning rate of the schedule.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1000.0)))]
    pub learning_rate: f64,
    /// Momentum.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.9999)))]
    pub momentum: f64,
    /// ℓ2 penalty, added to the gradient.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub weight_decay: f64,
    /// The trust coefficient: a layer's rate is so many times the length of its weights over that of its gradient.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 10.0)))]
    pub trust: f64,
    /// Which parameters have a rate of their own and weight decay: Customary (weights) or Paper (all).
    pub adaptation: Adaptation,
}

impl Default for Lars {
    fn default() -> Self {
        let adaptation = Adaptation::default();
        Self { learning_rate: 1.0, momentum: 0.9, weight_decay: 5e-4, trust: 0.001, adaptation }
    }
}

/// Averaged weights, evaluated beside those that are trained. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Averaging {
    /// An exponential moving average over steps.
    Ema(Ema),
}

/// An exponential moving average of weights and of BatchNorm's statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ema {
    /// What of the average stays in a step; (1 + t) / (10 + t) in step t while that is less.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 0.999_999)))]
    pub decay: f64,
}

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.999 }
    }
}
