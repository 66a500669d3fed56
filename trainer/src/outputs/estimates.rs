//! Accuracy estimates for outputs and the terminal: counts, accuracy in percent and a confidence interval. Pure.

use datjob_api::report::{AttackResult, CertifiedCount, Count, Results, StageCount, SweepCount};
use serde::Serialize;

use datjob_adversarial::{certify::clopper_pearson_lower_bound, test_protocol::TestResults};

/// The method of the confidence intervals: exact intervals of the binomial distribution (Clopper and Pearson, "The use of
/// confidence or fiducial limits illustrated in the case of the binomial").
pub const METHOD: &str = "Clopper-Pearson";
/// Confidence level: the minimum probability that an interval covers the accuracy on images of the same distribution.
pub const CONFIDENCE: f64 = 0.95;

/// The kind of an accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// On clean images.
    Clean,
    /// Under an attack.
    Attack,
    /// Under a component of the preceding attack and the components before it.
    Stage,
    /// Under all attacks.
    WorstCase,
    /// Under PGD with an epsilon and a number of steps of the sweep.
    Sweep,
    /// Certified within a radius.
    Certified,
}

/// An accuracy with its confidence interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccuracyEstimate {
    /// The kind of accuracy.
    pub measure: Measure,
    /// Its name, for example `pgd-20`.
    pub name: String,
    /// Number of correctly classified images.
    pub correct: u64,
    /// Number of evaluated images.
    pub total: u64,
    /// Accuracy in percent, rounded down to two decimals.
    pub percent: f64,
    /// Lower bound of the interval in percent, rounded down to two decimals.
    pub lower: f64,
    /// Upper bound of the interval in percent, rounded up to two decimals.
    pub upper: f64,
}

impl AccuracyEstimate {
    fn new(measure: Measure, name: impl Into<String>, count: Count) -> Self {
        let (lower, upper) = confidence_interval(count);
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

/// The accuracies of an evaluation on the test set.
#[derive(Clone, Copy, Debug)]
pub struct TestSummary<'a> {
    /// Clean accuracy.
    pub clean: Count,
    /// Robust accuracy under each attack.
    pub attacks: &'a [AttackResult],
    /// Robust accuracy under all attacks.
    pub worst_case: Count,
    /// Accuracy by epsilon and steps.
    pub sweep: &'a [SweepCount],
    /// Certified accuracy.
    pub certified: &'a [CertifiedCount],
}

impl<'a> From<&'a Results> for TestSummary<'a> {
    fn from(results: &'a Results) -> Self {
        let Results { clean, attacks, worst_case, sweep, certified, .. } = results;
        Self { clean: *clean, attacks, worst_case: *worst_case, sweep, certified }
    }
}

impl<'a> From<&'a TestResults> for TestSummary<'a> {
    fn from(results: &'a TestResults) -> Self {
        let TestResults { clean, attacks, worst_case, sweep, certified, .. } = results;
        Self { clean: *clean, attacks, worst_case: *worst_case, sweep, certified }
    }
}

impl TestSummary<'_> {
    /// All accuracies, in display order. The components of an attack follow the attack.
    pub fn estimates(&self) -> Vec<AccuracyEstimate> {
        let attacks = self.attacks.iter().flat_map(|attack| {
            let stage = |&StageCount { ref name, correct }: &StageCount| {
                AccuracyEstimate::new(Measure::Stage, name, Count { correct, total: attack.total })
            };
            let combined = AccuracyEstimate::new(Measure::Attack, &attack.attack, attack.count());
            std::iter::once(combined).chain(attack.stages.iter().map(stage)).collect::<Vec<_>>()
        });
        let sweep = self.sweep.iter().map(|&SweepCount { ref epsilon, steps, correct, total }| {
            AccuracyEstimate::new(
                Measure::Sweep,
                format!("pgd-{steps} at {epsilon}"),
                Count { correct, total },
            )
        });
        let certified = self.certified.iter().map(|&CertifiedCount { ref radius, correct, total }| {
            AccuracyEstimate::new(Measure::Certified, format!("certified {radius}"), Count { correct, total })
        });
        std::iter::once(AccuracyEstimate::new(Measure::Clean, "clean", self.clean))
            .chain(attacks)
            .chain(std::iter::once(AccuracyEstimate::new(Measure::WorstCase, "worst case", self.worst_case)))
            .chain(sweep)
            .chain(certified)
            .collect()
    }

    /// A table for the terminal, one string per line. The warnings of an attack follow its components.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<20} {:>9}   95 % interval", "test set", "accuracy")];
        let mut warnings = self.attacks.iter().map(|attack| &attack.warnings);
        let mut pending = None;
        for estimate in self.estimates() {
            if estimate.measure != Measure::Stage {
                lines.extend(warning_lines(pending.take()));
            }
            if estimate.measure == Measure::Attack {
                pending = warnings.next();
            }
            lines.push(line(&estimate));
        }
        lines
    }
}

fn line(
    AccuracyEstimate { measure, name, correct, total, percent, lower, upper }: &AccuracyEstimate,
) -> String {
    let indent = if *measure == Measure::Stage { "  " } else { "" };
    let name = format!("{indent}{name}");
    format!("{name:<20} {percent:>7.2} %   {lower:>5.2} to {upper:.2}   ({correct} of {total} images)")
}

fn warning_lines(warnings: Option<&Vec<String>>) -> impl Iterator<Item = String> {
    warnings.into_iter().flatten().map(|warning| format!("  {warning}"))
}

/// Confidence interval of the accuracy that a count estimates. Without images it is 0 to 1.
fn confidence_interval(Count { correct, total }: Count) -> (f64, f64) {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let incorrect = total.saturating_sub(correct);
    (
        clopper_pearson_lower_bound(correct, total, tail),
        1.0 - clopper_pearson_lower_bound(incorrect, total, tail),
    )
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

    /// Expected values from scipy 1.17.1: beta.ppf(0.025, k, n − k + 1) and beta.ppf(0.975, k + 1, n − k).
    #[test]
    fn confidence_intervals_equal_those_of_scipy() {
        for (correct, total, lower, upper) in SCIPY {
            let (low, high) = confidence_interval(Count { correct, total });
            assert!(
                (low - lower).abs() < 1e-12 && (high - upper).abs() < 1e-12,
                "{correct}/{total}: {low} {high}"
            );
        }
        assert_eq!(confidence_interval(Count { correct: 0, total: 0 }), (0.0, 1.0));
    }

    #[test]
    fn rounds_interval_bounds_outwards() {
        let estimate = AccuracyEstimate::new(Measure::Clean, "clean", Count { correct: 1, total: 3 });
        assert_eq!((estimate.percent, estimate.lower, estimate.upper), (33.33, 0.84, 90.58));
    }

    #[test]
    fn components_and_warnings_follow_their_attack() {
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
        let summary =
            TestSummary { clean, attacks: &attacks, worst_case, sweep: &sweep, certified: &certified };
        let lines = summary.lines().join("\n");
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
