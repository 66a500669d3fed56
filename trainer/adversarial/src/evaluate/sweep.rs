//! A sweep: PGD by radius and number of steps. Pure.

use datjob_api::{
    Epsilon,
    report::SweepCount,
    training::{FinalAttack, FinalPgd, Sweep, ThreatModel},
};

use super::{Counts, EvalAttack};

/// The attacks of a sweep, one for each of its points.
pub fn sweep_attacks(sweep: &Sweep, threat_model: &ThreatModel, classes: i64) -> Vec<EvalAttack> {
    let attack = |(epsilon, steps): (Epsilon, u32)| {
        let threat_model = ThreatModel { epsilon, ..threat_model.clone() };
        let pgd = FinalAttack::Pgd(FinalPgd { steps, restarts: None, step_size: None });
        let mut attack = EvalAttack::for_test(&pgd, &threat_model, classes);
        // The same starts at all points, scaled by the radius: the counts differ by radius and steps alone.
        attack.stages.iter_mut().for_each(|stage| "sweep".clone_into(&mut stage.random_key));
        attack
    };
    sweep.points(&threat_model.epsilon).into_iter().map(attack).collect()
}

/// Converts the counts of [`sweep_attacks`] into results.
pub fn sweep_results(sweep: &Sweep, threat_model: &ThreatModel, counts: &Counts) -> Vec<SweepCount> {
    let total = counts.total.sum();
    let point = |(number, (epsilon, steps)): (usize, (Epsilon, u32))| SweepCount {
        epsilon: epsilon.to_string(),
        steps,
        correct: counts.robust(number),
        total,
    };
    sweep.points(&threat_model.epsilon).into_iter().enumerate().map(point).collect()
}
