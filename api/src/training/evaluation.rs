use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Pgd;
use crate::{epsilon::Epsilon, report::Results};

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
    /// Where present, accuracy under PGD on the test set at the end, against its radius and its number of steps. It has no
    /// part in the worst case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Where present, the smoothed network's robust accuracy in l2 is certified on test images at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certify: Option<Certify>,
    /// What the weights must reach on the test set: without it the job fails with the reason TargetMissed. Results and
    /// weights are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Accuracy under PGD against its radius and its number of steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sweep {
    /// Radii, written as epsilon is: PGD of 20 steps at each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 16)))]
    pub epsilon: Vec<Epsilon>,
    /// Numbers of steps: PGD of so many at the radius of the threat model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 16), inner(range(min = 1, max = 10_000))))]
    pub steps: Vec<u32>,
}

impl Sweep {
    /// Steps of PGD at each radius of [`Sweep::epsilon`].
    pub const STEPS: u32 = 20;

    /// What is measured: radius and number of steps, first over radii, then over steps at `epsilon`.
    pub fn points(&self, epsilon: &Epsilon) -> Vec<(Epsilon, u32)> {
        let over_radii = self.epsilon.iter().map(|epsilon| (epsilon.clone(), Self::STEPS));
        over_radii.chain(self.steps.iter().map(|&steps| (epsilon.clone(), steps))).collect()
    }
}

/// Certification by randomised smoothing (Cohen et al., "Certified adversarial robustness via randomized smoothing", arXiv
/// 1902.02918).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Certify {
    /// How many test images, evenly spaced over the test set.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1_000_000)))]
    pub images: u32,
    /// Standard deviation of the noise, in units of the pixel range; that of `smoothing` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.001, max = 10.0)))]
    pub sigma: Option<f64>,
    /// Noisy copies that choose the class.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1_000_000)))]
    pub selection_samples: u32,
    /// Other noisy copies that bound its probability.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 100_000_000)))]
    pub samples: u32,
    /// Probability that the certificate of an image is wrong.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0001, max = 0.5)))]
    pub alpha: f64,
}

impl Default for Certify {
    fn default() -> Self {
        Self { images: 500, sigma: None, selection_samples: 100, samples: 100_000, alpha: 0.001 }
    }
}

/// The least accuracy on the test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The attack, by the name that results use, for example autoattack or pgd-20; the worst case over all attacks where
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    pub attack: Option<String>,
    /// Least accuracy under it, in percent.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 100.0)))]
    pub accuracy: f64,
}

impl Target {
    /// What was missed, as a sentence; nothing where it was reached.
    pub fn missed(&self, results: &Results) -> Option<String> {
        let attack = self.attack.as_deref();
        let (name, count) = match attack {
            None => ("the worst case", results.worst_case),
            Some(name) => match results.attacks.iter().find(|attack| attack.attack == name) {
                Some(attack) => (name, attack.count()),
                None => {
                    return Some(format!("The results have no attack {name}, which evaluation.target names"));
                }
            },
        };
        let reached = count.correct as f64 * 100.0 >= self.accuracy * count.total as f64;
        (!reached).then(|| {
            format!(
                "The robust accuracy under {name} is {} % ({} of {} test images), and evaluation.target asks for {} %",
                count.percent(),
                count.correct,
                count.total,
                self.accuracy
            )
        })
    }
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
    ApgdT(Targeted),
    /// Projected gradient descent on the margin of the logits, the loss of Carlini and Wagner.
    Cw(FinalPgd),
    /// FAB towards each of the likeliest other classes (Croce and Hein): the nearest example beyond the linearised
    /// boundary; the third attack of AutoAttack.
    FabT(Targeted),
    /// Square (Andriushchenko et al.): random search that asks for no gradient; the fourth attack of AutoAttack.
    Square(Square),
    /// AutoAttack, version "standard" (Croce and Hein): apgdCe, apgdT, fabT and square, each on the images that withstood
    /// those before, with its own warnings.
    AutoAttack(AutoAttack),
}

impl FinalAttack {
    /// The name that results use: `pgd-20`, or `pgd-50-10` for 50 steps with 10 restarts; `apgd-ce-100`; `apgd-t-100-9`
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

/// A name that is no attack's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} names no attack: write autoattack, pgd-STEPS[-RESTARTS], cw-STEPS[-RESTARTS], apgd-ce[-STEPS[-RESTARTS]], \
     apgd-t[-STEPS[-TARGETS]], fab-t[-STEPS[-TARGETS]] or square[-QUERIES[-RESTARTS]]"
)]
pub struct UnknownAttack(String);

impl FromStr for FinalAttack {
    type Err = UnknownAttack;

    /// The attack of a [`FinalAttack::name`], with default step size; numbers that have a default may be left out.
    fn from_str(name: &str) -> Result<Self, UnknownAttack> {
        let unknown = || UnknownAttack(name.to_owned());
        if name == "autoattack" {
            return Ok(Self::AutoAttack(AutoAttack {}));
        }
        let methods = ["pgd", "cw", "apgd-ce", "apgd-t", "fab-t", "square"];
        let (method, rest) = methods
            .iter()
            .find_map(|one| name.strip_prefix(one).map(|rest| (*one, rest)))
            .ok_or_else(unknown)?;
        let mut numbers = rest.split('-').skip(1).map(|number| number.parse::<u32>().map_err(|_| unknown()));
        let (first, second) = (numbers.next().transpose()?, numbers.next().transpose()?);
        if numbers.next().is_some() || !(rest.is_empty() || rest.starts_with('-')) {
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
            _ => Self::Square(Square { queries: first, restarts: second }),
        })
    }
}

/// AutoAttack as its authors fixed it: there is nothing to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AutoAttack {}

/// Random search without gradients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Square {
    /// How often the network is asked about an image; 5000 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 100_000)))]
    pub queries: Option<u32>,
    /// Random starts; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub restarts: Option<u32>,
}

impl Square {
    /// How often the network is asked, with the default filled in.
    pub fn queries(&self) -> u32 {
        self.queries.unwrap_or(5000)
    }

    /// Random starts, with the default filled in.
    pub fn restarts(&self) -> u32 {
        self.restarts.unwrap_or(1)
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

/// An attack towards other classes, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Targeted {
    /// Number of steps towards each class; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 10_000)))]
    pub steps: Option<u32>,
    /// How many classes, the likeliest after the first; 9 where absent. At most one less than there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_names_its_attack() {
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
        for name in ["", "pgd", "pgd-", "pgd20", "pgd-1-2-3", "apgd", "square-x", "autoattack-2"] {
            assert_eq!(name.parse::<FinalAttack>(), Err(UnknownAttack(name.to_owned())), "{name}");
        }
    }
}
