//! `attack` and `catastrophicOverfitting`: adversarial examples during training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ThreatModel;
use crate::epsilon::Epsilon;

/// Attack that generates adversarial examples during training, and its overlap with the gradient exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct TrainingAttack {
    /// The attack.
    pub method: Attack,
    /// Whether the attack of the next step runs during the gradient exchange of this step.
    pub overlap: bool,
}

/// Attack that generates adversarial examples during training.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    {"required": ["pgd"]}, {"required": ["fgsm"]}, {"required": ["nFgsm"]}
]))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    /// Projected gradient descent from a random start (Madry et al.).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pgd: Option<Pgd>,
    /// One gradient sign step from a random start (Wong et al., "Fast is better than free"). Requires norm Linf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fgsm: Option<Fgsm>,
    /// One gradient sign step from noise, without projection onto the ε-ball (de Jorge et al., "Make some noise").
    /// Requires norm Linf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_fgsm: Option<NFgsm>,
    /// Whether to generate the adversarial examples of the next step during the gradient exchange of the current step.
    /// This hides communication, but the attack uses weights that are one step old. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    overlap: bool,
}

impl JsonSchema for TrainingAttack {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TrainingAttack".into()
    }

    fn inline_schema() -> bool {
        Fields::inline_schema()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Fields::json_schema(generator)
    }
}

impl TryFrom<Fields> for TrainingAttack {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, &'static str> {
        let Fields { pgd, fgsm, n_fgsm, overlap } = fields;
        let method = match (pgd, fgsm, n_fgsm) {
            (Some(pgd), None, None) => Attack::Pgd(pgd),
            (None, Some(fgsm), None) => Attack::Fgsm(fgsm),
            (None, None, Some(n_fgsm)) => Attack::NFgsm(n_fgsm),
            _ => return Err("attack: set exactly one of pgd, fgsm, nFgsm"),
        };
        Ok(Self { method, overlap })
    }
}

impl From<TrainingAttack> for Fields {
    fn from(TrainingAttack { method, overlap }: TrainingAttack) -> Self {
        let mut fields = Self { pgd: None, fgsm: None, n_fgsm: None, overlap };
        match method {
            Attack::Pgd(pgd) => fields.pgd = Some(pgd),
            Attack::Fgsm(fgsm) => fields.fgsm = Some(fgsm),
            Attack::NFgsm(n_fgsm) => fields.n_fgsm = Some(n_fgsm),
        }
        fields
    }
}

/// Attack that generates adversarial examples during training.
#[derive(Clone, Debug, PartialEq)]
pub enum Attack {
    /// Projected gradient descent from a random start (Madry et al.).
    Pgd(Pgd),
    /// One gradient sign step from a random start (Wong et al., "Fast is better than free"). Requires norm Linf.
    Fgsm(Fgsm),
    /// One gradient sign step from noise, without projection onto the ε-ball (de Jorge et al., "Make some noise").
    /// Requires norm Linf.
    NFgsm(NFgsm),
}

/// Projected gradient descent from a uniformly random start in the ε-ball.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pgd {
    /// Number of steps, from 1 to 1000. Defaults to 10.
    #[schemars(range(min = 1, max = 1000))]
    pub steps: u32,
    /// Size of a step, in the format of epsilon. Defaults to 2.5 × epsilon / steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

/// The fast gradient sign method from a uniformly random start in the ε-ball.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fgsm {
    /// Size of the step, in the format of epsilon. Defaults to 1.25 × epsilon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

/// N-FGSM: one step of FGSM from uniform noise, clipped to the pixel range and not to the ε-ball.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NFgsm {
    /// Radius of the uniform noise as a multiple of epsilon, from 0 to 10. Defaults to 2.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub noise: f64,
    /// Size of the step, in the format of epsilon. Defaults to epsilon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

/// Response to catastrophic overfitting (Wong et al., section 5.4): on the validation split, accuracy under PGD
/// collapses while accuracy under a single step rises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CatastrophicOverfitting {
    /// Report sets a condition and emits an event. GoBack also restores the best weights, resets the optimizer state
    /// and reduces the attack's step size. Defaults to Report.
    pub response: OverfittingResponse,
    /// Factor for the attack's step size with GoBack, from 0.1 to 1. Defaults to 0.5.
    #[schemars(range(min = 0.1, max = 1.0))]
    pub step_factor: f64,
}

impl Default for CatastrophicOverfitting {
    fn default() -> Self {
        Self { response: OverfittingResponse::default(), step_factor: 0.5 }
    }
}

/// Response to catastrophic overfitting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OverfittingResponse {
    /// Sets a condition and emits an event.
    #[default]
    Report,
    /// Does the same, and training continues from the best weights.
    GoBack,
}

impl Attack {
    /// Step size of a single-step attack, in units of the pixel range; `None` for multi-step attacks.
    pub fn single_step_size(&self, threat_model: &ThreatModel) -> Option<f64> {
        match self {
            Self::Pgd(_) => None,
            Self::Fgsm(fgsm) => Some(fgsm.step_size(threat_model)),
            Self::NFgsm(n_fgsm) => Some(n_fgsm.step_size(threat_model)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_the_method_and_a_true_overlap() {
        for text in [r#"{"pgd":{"steps":7}}"#, r#"{"fgsm":{},"overlap":true}"#, r#"{"nFgsm":{"noise":2.0}}"#]
        {
            let attack: TrainingAttack = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&attack).unwrap(), text);
        }
    }

    #[test]
    fn rejects_several_missing_and_unknown_methods() {
        for text in [r#"{"pgd":{},"fgsm":{}}"#, r#"{"overlap":true}"#] {
            let error = serde_json::from_str::<TrainingAttack>(text).unwrap_err().to_string();
            assert!(error.contains("set exactly one of pgd, fgsm, nFgsm"), "{error}");
        }
        assert!(serde_json::from_str::<TrainingAttack>(r#"{"cw":{}}"#).is_err());
    }
}
