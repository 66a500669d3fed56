use serde::{Deserialize, Serialize};

use super::ThreatModel;
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

/// What is done where training with a single-step attack overfits to it (Wong et al., section 5.4): accuracy under the
/// attack on the validation split collapses, while that under a single step rises. It is reported in any case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CatastrophicOverfitting {
    /// Report, or GoBack to the best weights, with a new optimizer state and smaller attack steps.
    pub response: OverfittingResponse,
    /// What the attack's step size is multiplied by when going back.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.1, max = 1.0)))]
    pub step_factor: f64,
}

impl Default for CatastrophicOverfitting {
    fn default() -> Self {
        Self { response: OverfittingResponse::default(), step_factor: 0.5 }
    }
}

/// What is done about catastrophic overfitting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum OverfittingResponse {
    /// A condition and an event.
    #[default]
    Report,
    /// The same, and training goes on from the best weights.
    GoBack,
}

impl Attack {
    /// The size of its only step, in units of the pixel range; nothing for attacks of several steps.
    pub fn single_step_size(&self, threat_model: &ThreatModel) -> Option<f64> {
        match self {
            Self::Pgd(_) => None,
            Self::Fgsm(fgsm) => Some(fgsm.step_size(threat_model)),
            Self::NFgsm(n_fgsm) => Some(n_fgsm.step_size(threat_model)),
        }
    }
}
