//! Rules between the parts of the training spec. Pure.

use serde_json::{Value, json};

use super::{Attack, Labels, Norm, Objective, Training, rules::Rule};

/// The rules of the training spec in the form of `x-kubernetes-validations`.
pub(super) fn schema() -> Vec<Value> {
    let immutable = json!({
        "rule": "self == oldSelf",
        "message": "spec.training is immutable; create a new DatJob for another training"
    });
    let step_size = json!({
        "rule": STEP_SIZE_CEL,
        "message": "attack.*.stepSize must be at most 1 with norm Linf, in units of the pixel range [0, 1]; for example \"2/255\"",
        "fieldPath": ".attack"
    });
    [immutable, step_size].into_iter().chain(Rule::schema(&RULES)).collect()
}

/// Whether the step size is at most 1 with norm Linf. In Rust, [`Training::check`] compares all sizes.
const STEP_SIZE_CEL: &str = "[self.attack].all(attack, [has(attack.pgd) ? attack.pgd.?stepSize.orValue('') : has(attack.fgsm) \
    ? attack.fgsm.?stepSize.orValue('') : attack.?nFgsm.?stepSize.orValue('')].all(size, size == '' || self.threatModel.norm != \
    'Linf' || !size.matches('^[0-9]{1,6}(\\\\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?$') || (size.contains('/') ? \
    double(size.split('/')[0]) / double(size.split('/')[1]) : double(size)) <= 1.0))";

/// Rules of the training spec.
pub(super) const RULES: [Rule<Training>; 8] = [
    Rule {
        field: "attack",
        problem: "attack.fgsm and attack.nFgsm require threatModel.norm Linf and objective.crossEntropy, without smoothing; \
                  use attack.pgd",
        cel: Some(
            "has(self.attack.pgd) || (self.threatModel.norm == 'Linf' && has(self.objective.crossEntropy) && \
              !has(self.smoothing))",
        ),
        holds: |training| {
            matches!(training.attack.method, Attack::Pgd(_))
                || (training.threat_model.norm == Norm::Linf
                    && uses_cross_entropy(training)
                    && training.smoothing.is_none())
        },
    },
    Rule {
        field: "smoothing",
        problem: "smoothing requires objective.crossEntropy; use it, or remove smoothing",
        cel: Some("!has(self.smoothing) || has(self.objective.crossEntropy)"),
        holds: |training| training.smoothing.is_none() || uses_cross_entropy(training),
    },
    Rule {
        field: "catastrophicOverfitting",
        problem: "catastrophicOverfitting requires attack.fgsm or attack.nFgsm; remove the field",
        cel: Some("!has(self.catastrophicOverfitting) || !has(self.attack.pgd)"),
        holds: |training| {
            training.catastrophic_overfitting.is_none() || !matches!(training.attack.method, Attack::Pgd(_))
        },
    },
    Rule {
        field: "data.augmentation.cutMix",
        problem: "cutMix requires objective.crossEntropy or objective.trades, without smoothing, because objective.mart and \
                  smoothing need one label per image; remove cutMix",
        cel: None,
        holds: |training| {
            let needs_one_label =
                matches!(training.objective, Objective::Mart(_)) || training.smoothing.is_some();
            training.data.augmentation.cut_mix.is_none() || !needs_one_label
        },
    },
    Rule {
        field: "data.additional.perBatch",
        problem: "perBatch × schedule.batchSize gives zero additional images; increase one of them",
        cel: None,
        holds: |training| {
            let batch = training.schedule.batch_size;
            training
                .data
                .additional
                .as_ref()
                .is_none_or(|additional| batch >= 2 && f64::from(batch) * additional.per_batch >= 0.5)
        },
    },
    Rule {
        field: "data.additional.labels",
        problem: "labels.none requires objective.trades, without augmentation.cutMix, which mixes labels; use labels.teacher",
        cel: None,
        holds: |training| {
            let labels = training.data.additional.as_ref().map(|additional| &additional.labels);
            !matches!(labels, Some(Labels::None(_)))
                || (matches!(training.objective, Objective::Trades(_))
                    && training.data.augmentation.cut_mix.is_none())
        },
    },
    Rule {
        field: "schedule.localSteps",
        problem: "localSteps averages weights instead of gradients, so it cannot be combined with communication.compression or \
                  attack.overlap; remove one of them",
        cel: None,
        holds: |training| {
            training.schedule.local_steps() == 1
                || !(training.communication.compression.is_some() || training.attack.overlap)
        },
    },
    Rule {
        field: "evaluation.certify.sigma",
        problem: "certify.sigma, the standard deviation of the noise, is required without smoothing; set it",
        cel: None,
        holds: |training| training.evaluation.certify.is_none() || training.certified_sigma().is_some(),
    },
];

fn uses_cross_entropy(training: &Training) -> bool {
    matches!(training.objective, Objective::CrossEntropy(_))
}

#[cfg(test)]
mod tests;
