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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_points_in_the_order_of_the_attacks() {
        let sweep: Sweep =
            serde_json::from_value(serde_json::json!({"epsilon": ["2/255", "8/255"], "steps": [1, 10]}))
                .unwrap();
        let threat_model: ThreatModel =
            serde_json::from_value(serde_json::json!({"epsilon": "8/255"})).unwrap();
        let attacks = sweep_attacks(&sweep, &threat_model, 10);
        let mut counts = Counts::new(1, attacks.iter().map(|attack| attack.stages.len()));
        counts.total.add(&[0; 9]);
        for number in 0..attacks.len() {
            counts.attacks[number][0].add(&vec![0; 8 - number]);
        }
        let results = sweep_results(&sweep, &threat_model, &counts);
        let expected: Vec<_> = [("2/255", 20, 8), ("8/255", 20, 7), ("8/255", 1, 6), ("8/255", 10, 5)]
            .map(|(epsilon, steps, correct)| SweepCount { epsilon: epsilon.into(), steps, correct, total: 9 })
            .into();
        assert_eq!(results, expected);
        for (attack, result) in attacks.iter().zip(&results) {
            assert_eq!(attack.name, format!("pgd-{}", result.steps));
        }
    }
}
