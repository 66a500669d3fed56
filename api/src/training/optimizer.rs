//! `optimizer` and `averaging`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Optimizer. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Adam with decoupled weight decay (Loshchilov and Hutter).
    AdamW(AdamW),
    /// LAMB (You et al.): Adam's direction with a layer-wise learning rate, for large batches. `adaptation: Paper` is
    /// the layer-wise adaptive learning rate of distributed adversarial training.
    Lamb(Lamb),
    /// LARS (You et al.): momentum with a layer-wise learning rate, for large batches.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sgd {
    /// Maximum learning rate of the schedule, from 0 to 1000. Defaults to 0.1.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub learning_rate: f64,
    /// Momentum coefficient, from 0 to 0.9999. Defaults to 0.9.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub momentum: f64,
    /// Whether to use Nesterov momentum. Defaults to true.
    pub nesterov: bool,
    /// ℓ2 penalty on all parameters, added to the gradient, from 0 to 1. Defaults to 0.0005.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { learning_rate: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5e-4 }
    }
}

/// Adam with decoupled weight decay, as PyTorch defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdamW {
    /// Maximum learning rate of the schedule, from 0 to 1000. Defaults to 0.001.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub learning_rate: f64,
    /// Decay rate of the mean of gradients, from 0 to 0.999999. Defaults to 0.9.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub beta1: f64,
    /// Decay rate of the mean of squared gradients, from 0 to 0.999999. Defaults to 0.999.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub beta2: f64,
    /// Term added to the denominator for numerical stability, from 0 to 1. Defaults to 0.00000001.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: Option<f64>,
    /// Coefficient of the decoupled weight decay, from 0 to 100. Defaults to 0.01.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { learning_rate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: None, weight_decay: 0.01 }
    }
}

impl AdamW {
    /// The term added to the denominator, with the default filled in. The schema has no default, because YAML writes this
    /// small number with an exponent, which some parsers read as a string.
    pub fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(1e-8)
    }
}

/// Parameters with a layer-wise learning rate and weight decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adaptation {
    /// Weights only. Biases and BatchNorm parameters, which have one dimension, use the plain learning rate without
    /// weight decay.
    #[default]
    Customary,
    /// All parameters, as in the paper.
    Paper,
}

/// LAMB (You et al., "Large batch optimization for deep learning", arXiv 1904.00962).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lamb {
    /// Maximum learning rate of the schedule, from 0 to 1000. Defaults to 0.01.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub learning_rate: f64,
    /// Decay rate of the mean of gradients, from 0 to 0.999999. Defaults to 0.9.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub beta1: f64,
    /// Decay rate of the mean of squared gradients, from 0 to 0.999999. Defaults to 0.999.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub beta2: f64,
    /// Term added to the denominator for numerical stability, from 0 to 1. Defaults to 0.000001.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: Option<f64>,
    /// Coefficient of the weight decay that is added to Adam's direction, from 0 to 100. Defaults to 0.0001.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub weight_decay: f64,
    /// Parameters with a layer-wise learning rate and weight decay: Customary (weights only) or Paper (all parameters).
    /// Defaults to Customary.
    pub adaptation: Adaptation,
}

impl Default for Lamb {
    fn default() -> Self {
        let adaptation = Adaptation::default();
        Self { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: None, weight_decay: 1e-4, adaptation }
    }
}

impl Lamb {
    /// The term added to the denominator, with the default filled in.
    pub fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(1e-6)
    }
}

/// LARS (You et al., "Large batch training of convolutional networks", arXiv 1708.03888).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lars {
    /// Maximum learning rate of the schedule, from 0 to 1000. Defaults to 1.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub learning_rate: f64,
    /// Momentum coefficient, from 0 to 0.9999. Defaults to 0.9.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub momentum: f64,
    /// ℓ2 penalty, added to the gradient, from 0 to 1. Defaults to 0.0005.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// Trust coefficient, from 0 to 10. Defaults to 0.001. A layer's learning rate is multiplied by trust × ‖weights‖ /
    /// (‖gradient‖ + weightDecay × ‖weights‖).
    #[schemars(range(min = 0.0, max = 10.0))]
    pub trust: f64,
    /// Parameters with a layer-wise learning rate and weight decay: Customary (weights only) or Paper (all parameters).
    /// Defaults to Customary.
    pub adaptation: Adaptation,
}

impl Default for Lars {
    fn default() -> Self {
        let adaptation = Adaptation::default();
        Self { learning_rate: 1.0, momentum: 0.9, weight_decay: 5e-4, trust: 0.001, adaptation }
    }
}

/// Averaging of weights. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Averaging {
    /// Exponential moving average over steps.
    Ema(Ema),
}

/// Exponential moving average of the weights and of the BatchNorm statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ema {
    /// Decay rate of the average per step, from 0 to 0.999999. Defaults to 0.999. Step t uses (1 + t) / (10 + t) if
    /// that is less.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub decay: f64,
}

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.999 }
    }
}
