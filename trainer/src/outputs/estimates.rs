//! Accuracies as people and files are told them: the counts, the share in percent, and a confidence interval.

use datjob_api::report::{AttackResult, CertifiedCount, Count, Results, StageCount, SweepCount};
use serde::Serialize;

use datjob_adversarial::{certify::clopper_pearson_lower_bound, evaluate::TestResults};

/// How confidence intervals are made: exact ones, from the binomial distribution (Clopper and Pearson, "The use of
/// confidence or fiducial limits illustrated in the case of the binomial").
pub const METHOD: &str = "Clopper-Pearson";
/// The probability that an interval covers the accuracy on images of the same kind, at least.
pub const CONFIDENCE: f64 = 0.95;

/// What an accuracy was measured under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// Nothing: images as they are.
    Clean,
    /// An attack.
    Attack,
    /// A part of the attack before it, and the parts before.
    Stage,
    /// All attacks.
    WorstCase,
    /// PGD of a radius and a number of steps.
    Sweep,
    /// Certainty within a radius.
    Certified,
}

/// An accuracy, with all that is to be told of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What it was measured under.
    pub measure: Measure,
    /// The name of that, for example `pgd-20`.
    pub name: String,
    /// Images classified correctly.
    pub correct: u64,
    /// Images in all.
    pub total: u64,
    /// Their share in percent, rounded down to two decimals.
    pub percent: f64,
    /// Where the interval begins, in percent, rounded down to two decimals.
    pub lower: f64,
    /// Where the interval ends, in percent, rounded up to two decimals.
    pub upper: f64,
}

impl Figure {
    fn new(measure: Measure, name: impl Into<String>, count: Count) -> Self {
        let (lower, upper) = interval(count);
        let Count { correct, total } = count;
        let percent = (u128::from(correct) * 10_000 / u128::from(total.max(1))) as f64 / 100.0;
        Self {
            measure,
            name: name.into(),
            correct,
            total,
            percent,
            lower: (lower * 1e4).floor() / 100.0,
            upper: (upper * 1e4).ceil() / 100.0,
        }
    }
}

/// Everything that was measured of weights.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Clean accuracy.
    pub clean: Count,
    /// Robust accuracy under each attack.
    pub attacks: &'a [AttackResult],
    /// Robust accuracy under all of them.
    pub worst_case: Count,
    /// Accuracy against radius and steps.
    pub sweep: &'a [SweepCount],
    /// Certified accuracy.
    pub certified: &'a [CertifiedCount],
}

impl<'a> From<&'a Results> for Measured<'a> {
    fn from(results: &'a Results) -> Self {
        let Results { clean, attacks, worst_case, sweep, certified, .. } = results;
        Self { clean: *clean, attacks, worst_case: *worst_case, sweep, certified }
    }
}

impl<'a> From<&'a TestResults> for Measured<'a> {
    fn from(results: &'a TestResults) -> Self {
        let TestResults { clean, attacks, worst_case, sweep, certified, .. } = results;
        Self { clean: *clean, attacks, worst_case: *worst_case, sweep, certified }
    }
}

impl Measured<'_> {
    /// All accuracies, in the order in which they are told. A part of an attack follows its attack.
    pub fn figures(&self) -> Vec<Figure> {
        let attacks = self.attacks.iter().flat_map(|attack| {
            let stage = |&StageCount { ref name, correct }: &StageCount| {
                Figure::new(Measure::Stage, name, Count { correct, total: attack.total })
            };
            let whole = Figure::new(Measure::Attack, &attack.attack, attack.count());
            std::iter::once(whole).chain(attack.stages.iter().map(stage)).collect::<Vec<_>>()
        });
        let sweep = self.sweep.iter().map(|&SweepCount { ref epsilon, steps, correct, total }| {
            Figure::new(Measure::Sweep, format!("pgd-{steps} at {epsilon}"), Count { correct, total })
        });
        let certified = self.certified.iter().map(|&CertifiedCount { ref radius, correct, total }| {
            Figure::new(Measure::Certified, format!("certified {radius}"), Count { correct, total })
        });
        std::iter::once(Figure::new(Measure::Clean, "clean", self.clean))
            .chain(attacks)
            .chain(std::iter::once(Figure::new(Measure::WorstCase, "worst case", self.worst_case)))
            .chain(sweep)
            .chain(certified)
            .collect()
    }

    /// The same as lines for a terminal, with what is doubtful after the attack that it is of.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<20} {:>9}   95 % interval", "test set", "accuracy")];
        let mut warnings = self.attacks.iter().map(|attack| &attack.warnings);
        let mut pending = None;
        for figure in self.figures() {
            if figure.measure != Measure::Stage {
                lines.extend(warning_lines(pending.take()));
            }
            if figure.measure == Measure::Attack {
                pending = warnings.next();
            }
            lines.push(line(&figure));
        }
        lines
    }
}

fn line(Figure { measure, name, correct, total, percent, lower, upper }: &Figure) -> String {
    let indent = if *measure == Measure::Stage { "  " } else { "" };
    let name = format!("{indent}{name}");
    format!("{name:<20} {percent:>7.2} %   {lower:>5.2} to {upper:.2}   ({correct} of {total} images)")
}

fn warning_lines(warnings: Option<&Vec<String>>) -> impl Iterator<Item = String> {
    warnings.into_iter().flatten().map(|warning| format!("  {warning}"))
}

/// Bounds of the share that a count estimates, from 0 to 1. Nothing is known without images.
fn interval(Count { correct, total }: Count) -> (f64, f64) {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let wrong = total.saturating_sub(correct);
    (clopper_pearson_lower_bound(correct, total, tail), 1.0 - clopper_pearson_lower_bound(wrong, total, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCIPY: [(u64, u64, f64, f64); 5] = [
        (8313, 10000, 0.823_813_986_880_587_8, 0.838_592_536_812_428_3),
        (0, 10, 0.0, 0.308_497_107_818_760_7),
        (10, 10, 0.691_502_892_181_239_2, 1.0),
        (1, 3, 0.008_403_758_659_612_636, 0.905_700_675_949_753_9),
        (50, 100_000, 0.000_371_131_701_783_494_13, 0.000_659_135_195_869_371_9),
    ];

    /// Beside scipy 1.17.1: beta.ppf(0.025, k, n − k + 1) and beta.ppf(0.975, k + 1, n − k).
    #[test]
    fn intervals_are_those_of_scipy() {
        for (correct, total, lower, upper) in SCIPY {
            let (low, high) = interval(Count { correct, total });
            assert!(
                (low - lower).abs() < 1e-12 && (high - upper).abs() < 1e-12,
                "{correct}/{total}: {low} {high}"
            );
        }
        assert_eq!(interval(Count { correct: 0, total: 0 }), (0.0, 1.0));
    }

    #[test]
    fn bounds_are_rounded_outwards() {
        let figure = Figure::new(Measure::Clean, "clean", Count { correct: 1, total: 3 });
        assert_eq!((figure.percent, figure.lower, figure.upper), (33.33, 0.84, 90.58));
    }

    #[test]
    fn parts_and_doubts_follow_their_attack() {
        let attack = |name: &str, correct, stages: &[(&str, u64)], warnings: &[&str]| AttackResult {
            attack: name.into(),
            correct,
            total: 100,
            stages: stages.iter().map(|&(name, correct)| StageCount { name: name.into(), correct }).collect(),
            warnings: warnings.iter().map(|&warning| warning.into()).collect(),
        };
        let attacks = [
            attack("autoattack", 40, &[("apgd-ce", 45), ("square", 40)], &["Square's gain: 5."]),
            attack("pgd-20", 47, &[], &[]),
        ];
        let sweep = [SweepCount { epsilon: "4/255".into(), steps: 20, correct: 60, total: 100 }];
        let certified = [CertifiedCount { radius: "0.25".into(), correct: 5, total: 10 }];
        let (clean, worst_case) = (Count { correct: 80, total: 100 }, Count { correct: 39, total: 100 });
        let measured =
            Measured { clean, attacks: &attacks, worst_case, sweep: &sweep, certified: &certified };
        let lines = measured.lines().join("\n");
        let expected = "\
test set              accuracy   95 % interval
clean                  80.00 %   70.81 to 87.34   (80 of 100 images)
autoattack             40.00 %   30.32 to 50.28   (40 of 100 images)
  apgd-ce              45.00 %   35.03 to 55.28   (45 of 100 images)
  square               40.00 %   30.32 to 50.28   (40 of 100 images)
  Square's gain: 5.
pgd-20                 47.00 %   36.94 to 57.25   (47 of 100 images)
worst case             39.00 %   29.40 to 49.27   (39 of 100 images)
pgd-20 at 4/255        60.00 %   49.72 to 69.68   (60 of 100 images)
certified 0.25         50.00 %   18.70 to 81.30   (5 of 10 images)";
        assert_eq!(lines, expected);
    }
}
