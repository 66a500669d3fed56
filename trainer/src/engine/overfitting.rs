//! Catastrophic overfitting: training with an attack of a single step that learns to withstand that step and nothing else
//! (Wong et al., "Fast is better than free", section 5.4). Seen on the validation split.

use datjob_api::{
    Training,
    training::{CatastrophicOverfitting, OverfittingResponse},
};

use crate::checkpoint::OverfittingReference;
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

/// Whether the weights overfit to the single step: their robust accuracy is below half of the reference's, or at least
/// 20 points below it, and their accuracy under a single step is higher than the reference's.
///
/// Published collapses end at 0 % under PGD with a single-step accuracy near 100 % (Wong et al.; Kim et al., arXiv
/// 2010.01799), within one or a few epochs. Wong et al.'s code stops at a fall by more than 20 points. Half is for data sets
/// whose robust accuracy is low. Accuracy under a single step falls too when a training diverges.
pub(super) fn is_catastrophic(now: &OverfittingReference, reference: &OverfittingReference) -> bool {
    let (robust, highest) = (now.robust.count(), reference.robust.count());
    let fall = highest.correct.saturating_sub(robust.correct);
    let collapsed = robust.correct * 2 < highest.correct || fall * 5 >= highest.total;
    collapsed && now.single_step.correct > reference.single_step.correct
}

/// What the attack's step size is multiplied by where training is to go back to the best weights.
pub(super) fn goes_back(spec: Option<&CatastrophicOverfitting>) -> Option<f64> {
    let spec = spec.filter(|spec| spec.response == OverfittingResponse::GoBack)?;
    Some(spec.step_factor)
}

/// What happened and what is done, as a sentence. `back` has the factor for step sizes and the epoch of the best weights.
pub(super) fn sentence(
    now: &OverfittingReference,
    reference: &OverfittingReference,
    back: Option<(f64, u32)>,
) -> String {
    let seen = format!(
        "Epoch {}: catastrophic overfitting to the single-step attack. Accuracy under {} on the validation split fell from \
         {} % (epoch {}) to {} %; accuracy under a single step rose from {} % to {} %",
        now.epoch,
        reference.robust.attack,
        reference.robust.count().percent(),
        reference.epoch,
        now.robust.count().percent(),
        reference.single_step.percent(),
        now.single_step.percent()
    );
    match back {
        Some((factor, best_epoch)) => format!(
            "{seen}. Training continues from the weights of epoch {best_epoch} with the step size multiplied by {factor}"
        ),
        None => format!(
            "{seen}. The best weights are kept; train with pgd, a smaller stepSize, or catastrophicOverfitting.response \
             GoBack"
        ),
    }
}

#[cfg(test)]
mod tests {
    use datjob_api::report::{AttackCount, Count};

    use super::*;

    fn measured(epoch: u32, robust: u64, single_step: u64) -> OverfittingReference {
        let count = |correct| Count { correct, total: 1000 };
        OverfittingReference {
            epoch,
            robust: AttackCount::new("pgd-10", count(robust)),
            single_step: count(single_step),
        }
    }

    #[test]
    fn a_collapse_with_a_rise_is_catastrophic_and_nothing_else() {
        let detected = |from: (u64, u64), to: (u64, u64)| {
            is_catastrophic(&measured(3, to.0, to.1), &measured(2, from.0, from.1))
        };
        assert!(detected((450, 550), (250, 551)), "20 points");
        assert!(!detected((450, 550), (251, 999)), "less than 20 points, and more than half");
        assert!(detected((300, 400), (149, 401)), "less than half");
        assert!(!detected((300, 400), (150, 999)), "half");
        assert!(detected((450, 550), (0, 990)), "as in Wong et al.");
        assert!(!detected((450, 550), (0, 550)), "divergence: accuracy under a single step does not rise");
        assert!(!detected((450, 550), (460, 560)));
    }

    #[test]
    fn the_sentence_has_both_accuracies_and_the_response() {
        let (now, reference) = (measured(3, 100, 900), measured(2, 500, 600));
        let message = sentence(&now, &reference, Some((0.5, 1)));
        let accuracies = "Accuracy under pgd-10 on the validation split fell from 50.00 % (epoch 2) to 10.00 %; accuracy \
                          under a single step rose from 60.00 % to 90.00 %.";
        assert!(message.contains(accuracies), "{message}");
        assert!(message.ends_with("from the weights of epoch 1 with the step size multiplied by 0.5"));
        assert!(sentence(&now, &reference, None).contains("The best weights are kept"));
    }
}
