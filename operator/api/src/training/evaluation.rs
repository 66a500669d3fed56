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
}

impl FinalAttack {
    /// The name that results use: `pgd-20`, or `pgd-50-10` for 50 steps with 10 restarts.
    pub fn name(&self) -> String {
        match self {
            Self::Pgd(pgd) if pgd.restarts() == 1 => format!("pgd-{}", pgd.steps),
            Self::Pgd(pgd) => format!("pgd-{}-{}", pgd.steps, pgd.restarts()),
        }
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
