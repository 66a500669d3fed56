use serde::{Deserialize, Serialize};

use super::Pgd;
use crate::epsilon::Epsilon;

/// When and how accuracy is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Evaluation {
    /// On the validation split after every so many epochs, and after the last; the weights with the highest robust
    /// accuracy there are the job's result.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 10_000)))]
    pub every_epochs: u32,
    /// The attack on the validation split.
    pub during: DuringAttack,
    /// The attacks on the test set, once, at the end.
    #[serde(rename = "final")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 16)))]
    pub final_: Vec<FinalAttack>,
}

/// The attack on the validation split. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum DuringAttack {
    /// Projected gradient descent.
    Pgd(Pgd),
}

/// An attack on the test set. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum FinalAttack {
    /// Projected gradient descent with restarts.
    Pgd(FinalPgd),
    /// APGD on the cross-entropy (Croce and Hein), the first attack of AutoAttack.
    ApgdCe(ApgdCe),
    /// APGD on the targeted difference of logits ratio, once towards each of the likeliest other classes; the second
    /// attack of AutoAttack.
    ApgdT(ApgdT),
}

impl FinalAttack {
    /// The name that results use: `pgd-20`, or `pgd-50-10` for 50 steps with 10 restarts; `apgd-ce-100`; `apgd-t-100-9`
    /// for 100 steps towards each of 9 classes.
    pub fn name(&self) -> String {
        let (method, steps, runs) = match self {
            Self::Pgd(pgd) => ("pgd", pgd.steps, pgd.restarts()),
            Self::ApgdCe(apgd) => ("apgd-ce", apgd.steps(), apgd.restarts()),
            Self::ApgdT(apgd) => ("apgd-t", apgd.steps(), apgd.targets()),
        };
        if runs == 1 { format!("{method}-{steps}") } else { format!("{method}-{steps}-{runs}") }
    }
}

/// APGD on the cross-entropy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApgdCe {
    /// Number of steps; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 10_000)))]
    pub steps: Option<u32>,
    /// Random starts; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub restarts: Option<u32>,
}

impl ApgdCe {
    /// Number of steps, with the default filled in.
    pub fn steps(&self) -> u32 {
        self.steps.unwrap_or(100)
    }

    /// Random starts, with the default filled in.
    pub fn restarts(&self) -> u32 {
        self.restarts.unwrap_or(1)
    }
}

/// APGD towards other classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApgdT {
    /// Number of steps towards each class; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 10_000)))]
    pub steps: Option<u32>,
    /// How many classes, the likeliest after the first; 9 where absent. At most one less than there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub targets: Option<u32>,
}

impl ApgdT {
    /// Number of steps, with the default filled in.
    pub fn steps(&self) -> u32 {
        self.steps.unwrap_or(100)
    }

    /// How many classes, with the default filled in.
    pub fn targets(&self) -> u32 {
        self.targets.unwrap_or(9)
    }
}

/// Projected gradient descent; an image counts as robust where it withstands every restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FinalPgd {
    /// Number of steps.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 10_000)))]
    pub steps: u32,
    /// Random starts; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub restarts: Option<u32>,
    /// Size of a step, written as epsilon is; 2.5 × epsilon / steps where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

impl FinalPgd {
    /// Random starts, with the default filled in.
    pub fn restarts(&self) -> u32 {
        self.restarts.unwrap_or(1)
    }
}
