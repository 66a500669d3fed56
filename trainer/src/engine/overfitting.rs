//! Catastrophic overfitting: training with an attack of a single step that learns to withstand that step and nothing else
//! (Wong et al., "Fast is better than free", section 5.4). Seen on the validation split.

use datjob_api::{
    Training,
    report::Count,
    training::{CatastrophicOverfitting, OverfittingResponse},
};

use crate::checkpoint::Best;
use datjob_adversarial::{
    attack::{PerturbationSet, PgdParameters},
    evaluate::{EvalAttack, Method},
};

/// The single step that is measured beside the attack on the validation split: that of the training, whose size is multiplied
/// by `scale`, from a random start in the ball. Nothing where training takes several steps.
pub(super) fn single_step(training: &Training, scale: f64) -> Option<EvalAttack> {
    let threat_model = &training.threat_model;
    let step_size = training.attack.method.single_step_size(threat_model)? * scale;
    let parameters =
        PgdParameters { perturbations: PerturbationSet::from(threat_model), step_size, steps: 1 };
    Some(EvalAttack::single("single-step", Method::Pgd(parameters), 1))
}

/// Whether accuracy under the attack fell below half of that of the best weights, while that under a single step is higher
/// than theirs.
pub(super) fn is_catastrophic(robust: Count, single_step: Option<Count>, best: Option<&Best>) -> bool {
    let (Some(single_step), Some(best)) = (single_step, best) else { return false };
    let Some(best_single_step) = best.single_step else { return false };
    robust.correct * 2 < best.robust.correct && single_step.correct > best_single_step.correct
}

/// What the attack's step size is multiplied by where training is to go back to the best weights.
pub(super) fn goes_back(spec: Option<&CatastrophicOverfitting>) -> Option<f64> {
    let spec = spec.filter(|spec| spec.response == OverfittingResponse::GoBack)?;
    Some(spec.step_factor)
}

/// What happened and what is done, as a sentence.
pub(super) fn sentence(
    epoch: u32,
    robust: Count,
    single_step: Option<Count>,
    best: &Best,
    back: Option<f64>,
) -> String {
    let seen = format!(
        "Epoch {epoch}: catastrophic overfitting to the single-step attack. Accuracy under {} on the validation split \
         fell from {} % (epoch {}) to {} %; accuracy under a single step is {} %",
        best.robust.attack,
        best.robust.count().percent(),
        best.epoch,
        robust.percent(),
        single_step.map_or_else(String::new, Count::percent)
    );
    match back {
        Some(factor) => format!(
            "{seen}. Training continues from the weights of epoch {} with the step size multiplied by {factor}",
            best.epoch
        ),
        None => format!(
            "{seen}. The best weights are kept; train with pgd, a smaller stepSize, or catastrophicOverfitting.response \
             GoBack"
        ),
    }
}

#[cfg(test)]
mod tests {
    use datjob_api::report::AttackCount;

    use super::*;

    fn count(correct: u64) -> Count {
        Count { correct, total: 100 }
    }

    #[test]
    fn a_collapse_with_a_rise_is_catastrophic_and_nothing_else() {
        let best = Best {
            epoch: 2,
            clean: count(80),
            robust: AttackCount::new("pgd-10", count(50)),
            single_step: Some(count(60)),
            averaged: false,
            file: String::new(),
            sha256: String::new(),
        };
        let seen = |robust, single_step: Option<u64>| {
            is_catastrophic(count(robust), single_step.map(count), Some(&best))
        };
        assert!(seen(24, Some(61)));
        assert!(!seen(25, Some(99)), "exactly half of the best is not a collapse");
        assert!(!seen(0, Some(60)), "accuracy under the single step must rise");
        assert!(!seen(0, None));
        assert!(!is_catastrophic(count(0), Some(count(99)), None));
        let message = sentence(3, count(10), Some(count(90)), &best, Some(0.5));
        assert!(message.contains(
            "Accuracy under pgd-10 on the validation split fell from 50.00 % (epoch 2) to 10.00 %;"
        ));
        assert!(message.ends_with("with the step size multiplied by 0.5"));
    }
}
