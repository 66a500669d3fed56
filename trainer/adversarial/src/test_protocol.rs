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
