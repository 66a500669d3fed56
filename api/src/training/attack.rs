use serde::{Deserialize, Serialize};

use super::ThreatModel;
use crate::epsilon::Epsilon;

/// How adversarial examples are made during training, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct TrainingAttack {
    /// How.
    pub method: Attack,
    /// Whether the examples of the next step are made while the gradients of this one are averaged.
    pub overlap: bool,
}

/// How [`TrainingAttack`] is written: the methods side by side with what goes with each.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crd", schemars(extend("oneOf" = [
    {"required": ["pgd"]}, {"required": ["fgsm"]}, {"required": ["nFgsm"]}
])))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    /// Projected gradient descent from a random start (Madry et al.).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pgd: Option<Pgd>,
    /// One step from a random start (Wong et al., "Fast is better than free"); Linf only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fgsm: Option<Fgsm>,
    /// One step from noise that may leave the ε-ball, without projection (de Jorge et al., "Make some noise"); Linf only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_fgsm: Option<NFgsm>,
    /// Makes the adversarial examples of the next step while the gradients of this one are averaged: communication is
    /// hidden for as long as the attack takes. They are made against weights that are one step old.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    overlap: bool,
}

#[cfg(feature = "crd")]
impl schemars::JsonSchema for TrainingAttack {
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

/// How adversarial examples are made during training.
#[derive(Clone, Debug, PartialEq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_written_by_its_name_and_overlap_where_it_is_wanted() {
        for text in [r#"{"pgd":{"steps":7}}"#, r#"{"fgsm":{},"overlap":true}"#, r#"{"nFgsm":{"noise":2.0}}"#]
        {
            let attack: TrainingAttack = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&attack).unwrap(), text);
        }
    }

    #[test]
    fn two_methods_none_and_unknown_ones_are_refused() {
        for text in [r#"{"pgd":{},"fgsm":{}}"#, r#"{"overlap":true}"#] {
            let error = serde_json::from_str::<TrainingAttack>(text).unwrap_err().to_string();
            assert!(error.contains("set exactly one of pgd, fgsm, nFgsm"), "{error}");
        }
        assert!(serde_json::from_str::<TrainingAttack>(r#"{"cw":{}}"#).is_err());
    }
}
