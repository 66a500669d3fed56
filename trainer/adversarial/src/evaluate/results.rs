//! Conversion of counts into reported results. Pure.

use datjob_api::report::{AttackResult, Count, CountsByClass, StageCount};

use super::{ClassCounts, Counts, EvalAttack, sanity_warnings};

/// The results of each attack.
pub fn attack_results(attacks: &[EvalAttack], counts: &Counts) -> Vec<AttackResult> {
    let total = counts.total.sum();
    let count = |(number, attack): (usize, &EvalAttack)| {
        let stages = attack.stages.iter().zip(&counts.attacks[number]);
        let stages =
            stages.map(|(stage, robust)| StageCount { name: stage.name.clone(), correct: robust.sum() });
        AttackResult {
            attack: attack.name.clone(),
            correct: counts.robust(number),
            total,
            stages: if attack.stages.len() > 1 { stages.collect() } else { Vec::new() },
            warnings: sanity_warnings(counts, number, attack),
        }
    };
    attacks.iter().enumerate().map(count).collect()
}

impl Counts {
    /// Clean accuracy.
    pub fn clean(&self) -> Count {
        Count { correct: self.clean.sum(), total: self.total.sum() }
    }

    /// Robust accuracy under an attack.
    pub fn under_attack(&self, attack: usize) -> Count {
        Count { correct: self.robust(attack), total: self.total.sum() }
    }

    /// Robust accuracy under all attacks.
    pub fn worst_case(&self) -> Count {
        Count { correct: self.worst_case.sum(), total: self.total.sum() }
    }

    /// All counts by class.
    pub fn by_class(&self) -> CountsByClass {
        let numbers = |counts: &ClassCounts| counts.as_slice().to_vec();
        CountsByClass {
            total: numbers(&self.total),
            clean: numbers(&self.clean),
            attacks: self.attacks.iter().filter_map(|stages| stages.last()).map(numbers).collect(),
            worst_case: numbers(&self.worst_case),
        }
    }
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Norm;

    use super::*;
    use crate::attack::PerturbationSet;

    #[test]
    fn only_an_attack_of_several_stages_lists_them() {
        let ball = PerturbationSet { norm: Norm::Linf, epsilon: 0.1 };
        let auto_attack = EvalAttack::auto_attack(ball, 10);
        let mut single = EvalAttack { name: "apgd-ce".to_owned(), ..auto_attack.clone() };
        single.stages.truncate(1);

        let mut counts = Counts::new(2, [4, 1]);
        counts.total.add(&[0, 0, 1, 1, 1]);
        counts.clean.add(&[0, 0, 1, 1]);
        for (stage, images) in [&[0, 1, 1][..], &[0, 1], &[1], &[1]].into_iter().enumerate() {
            counts.attacks[0][stage].add(images);
        }
        counts.attacks[1][0].add(&[0, 0]);
        counts.worst_case.add(&[1]);

        let results = attack_results(&[auto_attack, single], &counts);
        let stages: Vec<u64> = results[0].stages.iter().map(|stage| stage.correct).collect();
        assert_eq!((results[0].correct, results[0].total, stages), (1, 5, vec![3, 2, 1, 1]));
        assert_eq!((results[1].correct, results[1].total, results[1].stages.len()), (2, 5, 0));
        assert_eq!(
            (counts.clean().correct, counts.worst_case().correct, counts.under_attack(1).correct),
            (4, 1, 2)
        );
        let by_class = counts.by_class();
        assert_eq!(
            (by_class.total, by_class.clean, by_class.worst_case),
            (vec![2, 3], vec![2, 2], vec![0, 1])
        );
        assert_eq!(by_class.attacks, [[0, 1], [2, 0]]);
    }
}
