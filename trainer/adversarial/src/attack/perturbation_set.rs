//! The set of allowed perturbations. Pure.

use datjob_api::training::{Norm, ThreatModel};

/// The set of allowed perturbations of an image: all with at most ε in a norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerturbationSet {
    /// The norm, also that of an attack's steps.
    pub norm: Norm,
    /// ε, in units of the pixel range.
    pub epsilon: f64,
}

impl From<&ThreatModel> for PerturbationSet {
    fn from(threat_model: &ThreatModel) -> Self {
        Self { norm: threat_model.norm, epsilon: threat_model.epsilon.value() }
    }
}
