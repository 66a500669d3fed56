//! Warnings that a robust accuracy may be overestimated: AutoAttack's checks, as sentences for results and status. Pure.

use super::{Counts, EvalAttack};

/// Number of images of 10,000 that Square may add to the gradient-based attacks. Square is the weakest of the four attacks
/// and uses no gradients: a larger gain means that the gradients may be masked.
const MAX_SQUARE_GAIN_PER_10_000: u64 = 20;

/// The warnings about the robust accuracy under attack `number`; empty for attacks without sanity checks.
pub fn sanity_warnings(counts: &Counts, number: usize, attack: &EvalAttack) -> Vec<String> {
    if !attack.sanity_checks {
        return Vec::new();
    }
    let total = counts.total.sum();
    let mut warnings = Vec::new();
    let nondeterministic = counts.nondeterministic.sum();
    if nondeterministic > 0 {
        warnings.push(format!(
            "Randomised network: the logits of {nondeterministic} of {total} images differ between two evaluations. Attacks \
             overestimate the robustness of a randomised network."
        ));
    }
    let zero_gradient = counts.zero_gradient.sum();
    if zero_gradient > 0 {
        warnings.push(format!(
            "Zero gradients: the gradient of the cross-entropy is zero at {zero_gradient} of the {} correctly classified \
             images. Gradient-based attacks fail there.",
            counts.clean.sum()
        ));
    }
    let robust_after = |name: &str| {
        let stage = attack.stages.iter().position(|stage| stage.name == name)?;
        Some(counts.attacks.get(number)?.get(stage)?.sum())
    };
    if let (Some(before), Some(square)) = (robust_after("fab-t"), robust_after("square"))
        && before.saturating_sub(square) * 10_000 > MAX_SQUARE_GAIN_PER_10_000 * total
    {
        warnings.push(format!(
            "Square's gain: Square finds adversarial examples of {} of {total} images that withstood all gradient-based \
             attacks. The network may mask its gradients.",
            before - square
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Norm;

    use super::*;
    use crate::attack::PerturbationSet;

    #[test]
    fn warns_of_each_problem() {
        let attack = EvalAttack::auto_attack(PerturbationSet { norm: Norm::Linf, epsilon: 0.1 }, 10);
        let mut counts = Counts::new(1, [4]);
        let images = vec![0; 1000];
        counts.total.add(&images);
        counts.attacks[0][2].add(&images[..500]);
        counts.attacks[0][3].add(&images[..498]);
        assert_eq!(sanity_warnings(&counts, 0, &attack), Vec::<String>::new());
        counts.attacks[0][3] = super::super::ClassCounts::default();
        counts.clean.add(&images[..800]);
        counts.zero_gradient.add(&[0]);
        counts.nondeterministic.add(&[0, 0]);
        let found = sanity_warnings(&counts, 0, &attack);
        assert!(found[0].starts_with("Randomised network: the logits of 2 of 1000"));
        let expected =
            "Zero gradients: the gradient of the cross-entropy is zero at 1 of the 800 correctly classified";
        assert!(found[1].starts_with(expected), "{}", found[1]);
        assert!(found[2].starts_with("Square's gain: Square finds adversarial examples of 500 of 1000"));
        let unchecked = EvalAttack { sanity_checks: false, ..attack };
        assert!(sanity_warnings(&counts, 0, &unchecked).is_empty());
    }
}
