use datjob_api::report::{AttackResult, Count, CountsByClass, StageCount};

use super::{ByClass, Counts, EvalAttack, doubts};

/// What results say of each attack.
pub(super) fn attack_results(attacks: &[EvalAttack], counts: &Counts) -> Vec<AttackResult> {
    let total = counts.total.sum();
    let count = |(number, attack): (usize, &EvalAttack)| {
        let stages = attack.stages.iter().zip(&counts.attacks[number]);
        let stages = stages.map(|(stage, left)| StageCount { name: stage.name.clone(), correct: left.sum() });
        AttackResult {
            attack: attack.name.clone(),
            correct: counts.robust(number),
            total,
            stages: if attack.stages.len() > 1 { stages.collect() } else { Vec::new() },
            warnings: doubts(counts, number, attack),
        }
    };
    attacks.iter().enumerate().map(count).collect()
}

impl Counts {
    /// Clean accuracy.
    pub fn clean(&self) -> Count {
        Count { correct: self.clean.sum(), total: self.total.sum() }
    }

    /// Accuracy under an attack.
    pub fn under(&self, attack: usize) -> Count {
        Count { correct: self.robust(attack), total: self.total.sum() }
    }

    /// Accuracy under all attacks.
    pub fn worst_case(&self) -> Count {
        Count { correct: self.worst_case.sum(), total: self.total.sum() }
    }

    /// A number for each class.
    pub fn by_class(&self) -> CountsByClass {
        let numbers = |counts: &ByClass| counts.as_slice().to_vec();
        CountsByClass {
            total: numbers(&self.total),
            clean: numbers(&self.clean),
            attacks: self.attacks.iter().filter_map(|stages| stages.last()).map(numbers).collect(),
            worst_case: numbers(&self.worst_case),
        }
    }
}
