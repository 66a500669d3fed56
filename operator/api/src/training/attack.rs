use serde::{Deserialize, Serialize};

use crate::epsilon::Epsilon;

/// How adversarial examples are made during training. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Attack {
    /// Projected gradient descent from a random start (Madry et al.).
    Pgd(Pgd),
    /// One step from a random start (Wong et al., "Fast is better than free"); Linf only.
    Fgsm(Fgsm),
    /// One step from noise that may leave the ε-ball, without projection (de Jorge et al., "Make some noise"); Linf only.
    NFgsm(NFgsm),
}

/// Projected gradient descent from a uniformly random start in the ε-ball.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pgd {
    /// Number of steps.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub steps: u32,
    /// Size of a step, written as epsilon is; 2.5 × epsilon / steps where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

/// The fast gradient sign method from a uniformly random start in the ε-ball.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fgsm {
    /// Size of the step, written as epsilon is; 1.25 × epsilon where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

/// N-FGSM: one step of FGSM from uniform noise, clipped to pixels but not to the ε-ball.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NFgsm {
    /// The noise is uniform within so many times epsilon.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 10.0)))]
    pub noise: f64,
    /// Size of the step, written as epsilon is; epsilon where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}
