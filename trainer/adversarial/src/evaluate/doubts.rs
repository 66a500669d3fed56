//! Signs that a robust accuracy is too high: AutoAttack's own checks, as sentences for results and status.

use super::{Counts, EvalAttack};

/// Square is the weakest of the four: where it, without gradients, brings down more than so many of 10,000 images, the
/// gradients of the others may mislead.
const SQUARES_GAIN_OF_10_000: u64 = 20;

/// What is doubtful about the figure of an attack, by its number; empty for attacks that are not checked.
pub fn doubts(counts: &Counts, number: usize, attack: &EvalAttack) -> Vec<String> {
    if !attack.checked {
        return Vec::new();
    }
    let total = counts.total.sum();
    let mut doubts = Vec::new();
    let unsteady = counts.unsteady.sum();
    if unsteady > 0 {
        doubts.push(format!(
            "Randomised network: the logits of {unsteady} of {total} images differ between two evaluations. Attacks \
             overestimate the robustness of a randomised network."
        ));
    }
    let without = counts.without_gradient.sum();
    if without > 0 {
        doubts.push(format!(
            "Zero gradients: the gradient of the cross-entropy is zero at {without} of {total} images. Gradient-based \
             attacks fail there."
        ));
    }
    let after = |name: &str| {
        let stage = attack.stages.iter().position(|stage| stage.name == name)?;
        Some(counts.attacks.get(number)?.get(stage)?.sum())
    };
    if let (Some(before), Some(square)) = (after("fab-t"), after("square"))
        && before.saturating_sub(square) * 10_000 > SQUARES_GAIN_OF_10_000 * total
    {
        doubts.push(format!(
            "Square's gain: Square finds adversarial examples of {} of {total} images that withstood all gradient-based \
             attacks. The network may mask its gradients.",
            before - square
        ));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Norm;

    use super::*;
    use crate::attack::PerturbationSet;

    #[test]
    fn each_sign_has_its_sentence() {
        let attack = EvalAttack::auto_attack(PerturbationSet { norm: Norm::Linf, epsilon: 0.1 }, 10);
        let mut counts = Counts::new(1, [4]);
        let images = vec![0; 1000];
        counts.total.add(&images);
        counts.attacks[0][2].add(&images[..500]);
        counts.attacks[0][3].add(&images[..498]);
        assert_eq!(doubts(&counts, 0, &attack), Vec::<String>::new());
        counts.attacks[0][3] = super::super::ByClass::default();
        counts.without_gradient.add(&[0]);
        counts.unsteady.add(&[0, 0]);
        let found = doubts(&counts, 0, &attack);
        assert!(found[0].starts_with("Randomised network: the logits of 2 of 1000"));
        assert!(
            found[1].starts_with("Zero gradients: the gradient of the cross-entropy is zero at 1 of 1000")
        );
        assert!(found[2].starts_with("Square's gain: Square finds adversarial examples of 500 of 1000"));
        let unchecked = EvalAttack { checked: false, ..attack };
        assert!(doubts(&counts, 0, &unchecked).is_empty());
    }
}
