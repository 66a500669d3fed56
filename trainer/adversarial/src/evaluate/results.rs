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
