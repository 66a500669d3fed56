//! `evaluation`: evaluations during training and at the end.

use std::{collections::VecDeque, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Pgd, rules::Rule};
use crate::{epsilon::Epsilon, report::Results};

/// Evaluations during training and at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Evaluation {
    /// Number of epochs between evaluations on the validation split, from 1 to 10000. Defaults to 1. The last epoch is
    /// always evaluated. The weights with the highest robust accuracy become the job's result.
    #[schemars(range(min = 1, max = 10_000))]
    pub every_epochs: u32,
    /// Attack on the validation split. Defaults to `pgd: {steps: 10}`.
    pub during: DuringAttack,
    /// Attacks on the test set, which is evaluated once at the end. From 1 to 16 attacks with distinct names; defaults
    /// to `pgd: {steps: 20}`.
    #[serde(rename = "final")]
    #[schemars(length(min = 1, max = 16))]
    pub final_: Vec<FinalAttack>,
    /// Accuracy under PGD on the test set for several radii and numbers of steps, measured at the end. It is not part
    /// of the worst case. Disabled if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Certified accuracy of the smoothed network in ℓ2, measured on test images at the end. Disabled if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certify: Option<Certify>,
    /// Minimum robust accuracy on the test set. A job that misses it fails with the reason TargetMissed and keeps its
    /// results and weights. No minimum if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Accuracy under PGD for several radii and numbers of steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sweep {
    /// Radii in the format of `threatModel.epsilon`, at most 16. Each is measured with 20 steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub epsilon: Vec<Epsilon>,
    /// Numbers of steps, at most 16, each from 1 to 10000. Each is measured at `threatModel.epsilon`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 10_000)))]
    pub steps: Vec<u32>,
}

impl Sweep {
    /// Number of PGD steps at each radius of [`Sweep::epsilon`].
    pub const STEPS: u32 = 20;

    /// Radius and number of steps of each measurement: first over radii, then over steps at `epsilon`.
    pub fn points(&self, epsilon: &Epsilon) -> Vec<(Epsilon, u32)> {
        let over_radii = self.epsilon.iter().map(|epsilon| (epsilon.clone(), Self::STEPS));
        over_radii.chain(self.steps.iter().map(|&steps| (epsilon.clone(), steps))).collect()
    }
}

/// Certification by randomised smoothing (Cohen et al., "Certified adversarial robustness via randomized smoothing", arXiv
/// 1902.02918).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Certify {
    /// Number of test images, evenly spaced over the test set: from 1 to 1000000, at most the size of the test set.
    /// Defaults to 500.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub images: u32,
    /// Standard deviation of the noise, in units of the pixel range [0, 1], from 0.001 to 10. Defaults to
    /// `smoothing.sigma`; required without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 10.0))]
    pub sigma: Option<f64>,
    /// Number of noisy copies of an image that select its class, from 1 to 1000000. Defaults to 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub selection_samples: u32,
    /// Number of further noisy copies that bound the probability of the class, from 1 to 100000000. Defaults to 100000.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub samples: u32,
    /// Maximum probability that the certificate of an image is wrong, from 0.0001 to 0.5. Defaults to 0.001.
    #[schemars(range(min = 0.0001, max = 0.5))]
    pub alpha: f64,
}

impl Default for Certify {
    fn default() -> Self {
        Self { images: 500, sigma: None, selection_samples: 100, samples: 100_000, alpha: 0.001 }
    }
}

/// Minimum robust accuracy on the test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Name of an attack of `evaluation.final` as in the results, for example autoattack or pgd-20. Defaults to the
    /// worst case over all attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub attack: Option<String>,
    /// Minimum accuracy under the attack in percent, from 0 to 100.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub accuracy: f64,
}

impl Target {
    /// Describes how the results miss the target; `None` if they reach it.
    pub fn missed(&self, results: &Results) -> Option<String> {
        let attack = self.attack.as_deref();
        let (name, count) = match attack {
            None => ("all attacks (worst case)", results.worst_case),
            Some(name) => match results.attacks.iter().find(|attack| attack.attack == name) {
                Some(attack) => (name, attack.count()),
                None => {
                    return Some(format!("Attack {name} of evaluation.target is missing from the results"));
                }
            },
        };
        (!count.reaches(self.accuracy)).then(|| {
            format!(
                "Robust accuracy under {name} is {} % ({} of {} test images), less than evaluation.target.accuracy ({} %)",
                count.percent(),
                count.correct,
                count.total,
                self.accuracy
            )
        })
    }
}

/// Attack on the validation split. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum DuringAttack {
    /// Projected gradient descent.
    Pgd(Pgd),
}

/// Attack on the test set. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum FinalAttack {
    /// Projected gradient descent on the cross-entropy.
    Pgd(FinalPgd),
    /// APGD on the cross-entropy (Croce and Hein); the first component of AutoAttack.
    ApgdCe(ApgdCe),
    /// APGD on the targeted difference of logits ratio, towards each of the most likely other classes; the second
    /// component of AutoAttack. Requires at least 4 classes.
    ApgdT(Targeted),
    /// Projected gradient descent on the margin of the logits (the loss of Carlini and Wagner).
    Cw(FinalPgd),
    /// FAB (Croce and Hein) towards each of the most likely other classes: searches the nearest adversarial example;
    /// the third component of AutoAttack.
    FabT(Targeted),
    /// Square (Andriushchenko et al.): random search without gradients; the fourth component of AutoAttack.
    Square(Square),
    /// AutoAttack, version "standard" (Croce and Hein): apgdCe, apgdT, fabT and square, each on the images that
    /// withstood the previous components. The results include AutoAttack's warnings. Requires at least 4 classes.
    AutoAttack(AutoAttack),
}

impl FinalAttack {
    /// The name that results use; distinct within `evaluation.final`. It contains the two numbers of an attack: `pgd-20`, or `pgd-50-10` for 50 steps with 10 restarts; `apgd-ce-100`; `apgd-t-100-9`
    /// for 100 steps towards each of 9 classes; `square-5000` for 5000 queries; `autoattack`.
    pub fn name(&self) -> String {
        let (method, steps, runs) = match self {
            Self::Pgd(pgd) => ("pgd", pgd.steps, pgd.restarts()),
            Self::Cw(pgd) => ("cw", pgd.steps, pgd.restarts()),
            Self::ApgdCe(apgd) => ("apgd-ce", apgd.steps(), apgd.restarts()),
            Self::ApgdT(apgd) => ("apgd-t", apgd.steps(), apgd.targets()),
            Self::FabT(fab) => ("fab-t", fab.steps(), fab.targets()),
            Self::Square(square) => ("square", square.queries(), square.restarts()),
            Self::AutoAttack(AutoAttack {}) => return "autoattack".to_owned(),
        };
        if runs == 1 { format!("{method}-{steps}") } else { format!("{method}-{steps}-{runs}") }
    }
}

/// An unknown name of an attack.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "unknown attack {0:?}; expected autoattack, pgd-STEPS[-RESTARTS], cw-STEPS[-RESTARTS], apgd-ce[-STEPS[-RESTARTS]], \
     apgd-t[-STEPS[-TARGETS]], fab-t[-STEPS[-TARGETS]] or square[-QUERIES[-RESTARTS]]"
)]
pub struct UnknownAttack(String);

impl FromStr for FinalAttack {
    type Err = UnknownAttack;

    /// Parses a [`FinalAttack::name`]. The step size is the default; numbers with a default are optional.
    fn from_str(name: &str) -> Result<Self, UnknownAttack> {
        let unknown = || UnknownAttack(name.to_owned());
        let mut method = name;
        let mut numbers = VecDeque::new();
        while let Some((rest, last)) = method.rsplit_once('-')
            && let Ok(number) = last.parse::<u32>()
        {
            method = rest;
            numbers.push_front(number);
        }
        let (first, second) = (numbers.pop_front(), numbers.pop_front());
        if !numbers.is_empty() {
            return Err(unknown());
        }
        let pgd = || -> Result<FinalPgd, UnknownAttack> {
            Ok(FinalPgd { steps: first.ok_or_else(unknown)?, restarts: second, step_size: None })
        };
        Ok(match method {
            "pgd" => Self::Pgd(pgd()?),
            "cw" => Self::Cw(pgd()?),
            "apgd-ce" => Self::ApgdCe(ApgdCe { steps: first, restarts: second }),
            "apgd-t" => Self::ApgdT(Targeted { steps: first, targets: second }),
            "fab-t" => Self::FabT(Targeted { steps: first, targets: second }),
            "square" => Self::Square(Square { queries: first, restarts: second }),
            "autoattack" if first.is_none() => Self::AutoAttack(AutoAttack {}),
            _ => return Err(unknown()),
        })
    }
}

/// AutoAttack with its standard parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoAttack {}

/// Random search without gradients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Square {
    /// Maximum number of queries to the network per image, from 1 to 100000. Defaults to 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub queries: Option<u32>,
    /// Number of random starts, from 1 to 1000. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub restarts: Option<u32>,
}

impl Square {
    /// Number of queries, with the default filled in.
    pub fn queries(&self) -> u32 {
        self.queries.unwrap_or(5000)
    }

    /// Random starts, with the default filled in.
    pub fn restarts(&self) -> u32 {
        self.restarts.unwrap_or(1)
    }
}

/// APGD on the cross-entropy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApgdCe {
    /// Number of steps, from 1 to 10000. Defaults to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub steps: Option<u32>,
    /// Number of random starts, from 1 to 1000. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
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

/// Attack towards several target classes in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Targeted {
    /// Number of steps per target class, from 1 to 10000. Defaults to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub steps: Option<u32>,
    /// Number of target classes, the most likely after the first. From 1 to the number of classes minus 1; defaults to
    /// 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub targets: Option<u32>,
}

impl Targeted {
    /// Number of steps, with the default filled in.
    pub fn steps(&self) -> u32 {
        self.steps.unwrap_or(100)
    }

    /// How many classes, with the default filled in.
    pub fn targets(&self) -> u32 {
        self.targets.unwrap_or(9)
    }
}

/// Projected gradient descent. An image counts as robust if it withstands every restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FinalPgd {
    /// Number of steps, from 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub steps: u32,
    /// Number of random starts, from 1 to 1000. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub restarts: Option<u32>,
    /// Size of a step, in the format of epsilon. Defaults to 2.5 × epsilon / steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
}

impl FinalPgd {
    /// Random starts, with the default filled in.
    pub fn restarts(&self) -> u32 {
        self.restarts.unwrap_or(1)
    }
}

/// Rules of the evaluation.
pub(super) const RULES: [Rule<Evaluation>; 1] = [Rule {
    field: "target.attack",
    problem: "target.attack must be the name of an attack of evaluation.final in the results, for example \"pgd-20\", \
                  \"pgd-50-10\" for 10 restarts, or \"autoattack\"; remove the field for the worst case",
    // Lists instead of strings, because the API server cannot estimate the length of a number as text.
    cel: Some(
        "!has(self.target) || !has(self.target.attack) || self.final.map(a, \
              has(a.pgd) ? ['pgd', string(a.pgd.steps), string(a.pgd.?restarts.orValue(1))] : \
              has(a.cw) ? ['cw', string(a.cw.steps), string(a.cw.?restarts.orValue(1))] : \
              has(a.apgdCe) ? ['apgd', 'ce', string(a.apgdCe.?steps.orValue(100)), string(a.apgdCe.?restarts.orValue(1))] : \
              has(a.apgdT) ? ['apgd', 't', string(a.apgdT.?steps.orValue(100)), string(a.apgdT.?targets.orValue(9))] : \
              has(a.fabT) ? ['fab', 't', string(a.fabT.?steps.orValue(100)), string(a.fabT.?targets.orValue(9))] : \
              has(a.square) ? ['square', string(a.square.?queries.orValue(5000)), string(a.square.?restarts.orValue(1))] : \
              ['autoattack', '1']).exists(name, self.target.attack.split('-') + (name[name.size() - 1] == '1' ? \
              ['1'] : []) == name)",
    ),
    holds: |evaluation| {
        let wanted = evaluation.target.as_ref().and_then(|target| target.attack.as_ref());
        wanted
            .is_none_or(|wanted| evaluation.final_.iter().map(FinalAttack::name).any(|name| name == *wanted))
    },
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_their_attacks() {
        for name in [
            "autoattack",
            "pgd-20",
            "pgd-50-10",
            "cw-100",
            "apgd-ce-100",
            "apgd-t-100-9",
            "fab-t-50-3",
            "square-5000",
        ] {
            assert_eq!(name.parse::<FinalAttack>().unwrap().name(), name);
        }
        assert_eq!("apgd-t".parse::<FinalAttack>().unwrap().name(), "apgd-t-100-9");
        for name in ["", "pgd", "pgd-", "pgd--5", "pgd20", "pgd-1-2-3", "apgd", "square-x", "autoattack-2"] {
            assert_eq!(name.parse::<FinalAttack>(), Err(UnknownAttack(name.to_owned())), "{name}");
        }
    }
}
