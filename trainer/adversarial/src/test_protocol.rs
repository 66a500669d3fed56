//! The test protocol: which accuracies are measured once on the test set, in which order. It only decides; the caller
//! measures, in one process or over all ranks.

use datjob_api::{
    Training,
    report::{AttackResult, CertifiedCount, Count, CountsByClass, SweepCount},
};

use crate::{
    certify::Certification,
    evaluate::{Counts, EvalAttack, attack_results, sweep_attacks, sweep_results},
};

/// Measurements of a network on the test set.
pub trait TestMeasurements {
    /// Error of a measurement.
    type Error;

    /// Counts the test images that are classified correctly, clean and under these attacks.
    fn accuracy(&mut self, attacks: &[EvalAttack]) -> Result<Counts, Self::Error>;

    /// Measures the certified accuracy by radius on `images` evenly spaced test images.
    fn certified(
        &mut self,
        certification: &Certification,
        images: usize,
    ) -> Result<Vec<CertifiedCount>, Self::Error>;
}

/// The results of a test protocol.
#[derive(Clone, Debug)]
pub struct TestResults {
    /// Clean accuracy.
    pub clean: Count,
    /// Robust accuracy under each attack of `evaluation.final`.
    pub attacks: Vec<AttackResult>,
    /// Robust accuracy under all of them.
    pub worst_case: Count,
    /// Accuracy under PGD by radius and steps; empty without `evaluation.sweep`.
    pub sweep: Vec<SweepCount>,
    /// Certified accuracy by radius; empty without `evaluation.certify`.
    pub certified: Vec<CertifiedCount>,
    /// Clean accuracy and that under each attack, by class.
    pub by_class: CountsByClass,
}

/// Runs the measurements of the spec's `evaluation`: the final attacks, the sweep, the certification. `classes` is the
/// number of classes.
pub fn run_test_protocol<M: TestMeasurements>(
    training: &Training,
    classes: i64,
    measurements: &mut M,
) -> Result<TestResults, M::Error> {
    let Training { threat_model, evaluation, .. } = training;
    let attack = |attack| EvalAttack::for_test(attack, threat_model, classes);
    let attacks: Vec<EvalAttack> = evaluation.final_.iter().map(attack).collect();
    let counts = measurements.accuracy(&attacks)?;
    let sweep = match &evaluation.sweep {
        Some(sweep) => {
            let counts = measurements.accuracy(&sweep_attacks(sweep, threat_model, classes))?;
            sweep_results(sweep, threat_model, &counts)
        }
        None => Vec::new(),
    };
    let certified = match (&evaluation.certify, training.certified_sigma()) {
        (Some(spec), Some(sigma)) => {
            measurements.certified(&Certification::new(spec, sigma), spec.images as usize)?
        }
        _ => Vec::new(),
    };
    Ok(TestResults {
        clean: counts.clean(),
        attacks: attack_results(&attacks, &counts),
        worst_case: counts.worst_case(),
        sweep,
        certified,
        by_class: counts.by_class(),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::{Value, json};

    use super::*;

    /// Records the requested measurements. Their results differ.
    #[derive(Default)]
    struct Recorder {
        attacks: Vec<Vec<String>>,
        certifications: Vec<(Certification, usize)>,
    }

    impl TestMeasurements for Recorder {
        type Error = Infallible;

        fn accuracy(&mut self, attacks: &[EvalAttack]) -> Result<Counts, Infallible> {
            let mut counts = Counts::new(1, attacks.iter().map(|attack| attack.stages.len()));
            counts.total.add(&[0; 10]);
            counts.clean.add(&[0; 9]);
            counts.worst_case.add(&[0; 6]);
            for (number, stages) in counts.attacks.iter_mut().enumerate() {
                stages[0].add(&vec![0; 8 - number - 2 * self.attacks.len()]);
            }
            self.attacks.push(attacks.iter().map(|attack| attack.name.clone()).collect());
            Ok(counts)
        }

        fn certified(
            &mut self,
            certification: &Certification,
            images: usize,
        ) -> Result<Vec<CertifiedCount>, Infallible> {
            self.certifications.push((*certification, images));
            Ok(vec![certified_count()])
        }
    }

    fn certified_count() -> CertifiedCount {
        CertifiedCount { radius: "0.0".to_owned(), correct: 3, total: 4 }
    }

    /// Runs the protocol of a spec with this `evaluation`.
    fn run(evaluation: &Value) -> (TestResults, Recorder) {
        let training: Training = serde_json::from_value(json!({
            "model": {"architecture": "small-cnn"},
            "data": {"dataset": "mnist", "source": {"image": {"reference": "a"}}},
            "threatModel": {"epsilon": "0.1"},
            "attack": {"fgsm": {}},
            "schedule": {"epochs": 1},
            "evaluation": evaluation
        }))
        .unwrap();
        let mut recorder = Recorder::default();
        let results = run_test_protocol(&training, 10, &mut recorder).unwrap();
        (results, recorder)
    }

    #[test]
    fn measures_the_attacks_then_the_sweep_then_the_certified_accuracy() {
        let (results, recorder) = run(&json!({
            "final": [{"pgd": {"steps": 5, "restarts": 2}}, {"pgd": {"steps": 30}}],
            "sweep": {"epsilon": ["0.05"], "steps": [2]},
            "certify": {"images": 4, "sigma": 0.25, "selectionSamples": 10, "samples": 200, "alpha": 0.01}
        }));
        assert_eq!(recorder.attacks, [["pgd-5-2", "pgd-30"], ["pgd-20", "pgd-2"]]);
        let attacks: Vec<_> =
            results.attacks.iter().map(|result| (result.attack.as_str(), result.correct)).collect();
        assert_eq!(attacks, [("pgd-5-2", 8), ("pgd-30", 7)]);
        let sweep: Vec<_> =
            results.sweep.iter().map(|point| (point.epsilon.as_str(), point.steps, point.correct)).collect();
        assert_eq!(sweep, [("0.05", 20, 6), ("0.1", 2, 5)]);
        let certification = Certification { sigma: 0.25, selection_samples: 10, samples: 200, alpha: 0.01 };
        assert_eq!(recorder.certifications, [(certification, 4)]);
        assert_eq!(results.certified, [certified_count()]);
        assert_eq!((results.clean.correct, results.clean.total, results.worst_case.correct), (9, 10, 6));
        assert_eq!((results.by_class.clean, results.by_class.attacks), (vec![9], vec![vec![8], vec![7]]));
    }

    #[test]
    fn measures_neither_a_sweep_nor_certified_accuracy_by_default() {
        let (results, recorder) = run(&json!({}));
        assert_eq!(recorder.attacks, [["pgd-20"]]);
        assert!(recorder.certifications.is_empty());
        assert!(results.sweep.is_empty() && results.certified.is_empty(), "{results:?}");
    }
}
