//! Rules between fields of the training spec. Pure.
//!
//! The API server evaluates a rule in CEL, the operator and `dat-trainer` in Rust, with the same sentence. The API server
//! does so at every write of a DatJob, also of its status, and for each field that a rule reads it copies the schemas of
//! all fields of the object. Therefore a rule belongs to the smallest object that has its fields, reads few of them, and
//! ends at an absent field if it can.

use serde_json::{Value, json};

use super::{
    Attack, Augmentation, Data, Decay, Evaluation, FinalAttack, InvalidTraining, Labels, Model, Norm,
    Objective, Schedule, Stem, Training, VolumeFile, VolumeSource,
};

/// A rule between fields of a `T`.
pub(super) struct Rule<T> {
    /// Path of the field below `T`.
    field: &'static str,
    /// What is wrong and what to write. It names the fields.
    problem: &'static str,
    /// The rule in CEL, where `self` is a `T`; `None` if the API server would have to search several objects for a rare
    /// mistake.
    cel: Option<&'static str>,
    /// The rule in Rust.
    holds: fn(&T) -> bool,
}

impl<T> Rule<T> {
    /// The rules in the form of `x-kubernetes-validations`.
    pub(super) fn schema(rules: &[Self]) -> Vec<Value> {
        let schema = |Self { field, problem, cel, .. }: &Self| {
            Some(json!({"rule": (*cel)?, "message": problem, "fieldPath": format!(".{field}")}))
        };
        rules.iter().filter_map(schema).collect()
    }

    /// Checks the rules; the first violation is the error. `prefix` is the path of the value below `spec.training`.
    pub(super) fn check(rules: &[Self], value: &T, prefix: &str) -> Result<(), InvalidTraining> {
        match rules.iter().find(|rule| !(rule.holds)(value)) {
            Some(Self { field, problem, .. }) => {
                Err(InvalidTraining { field: format!("{prefix}{field}"), problem: (*problem).to_owned() })
            }
            None => Ok(()),
        }
    }
}

/// Rules of a network. A teacher is one too.
pub(super) const MODEL: [Rule<Model>; 1] = [Rule {
    field: "stem",
    problem: "stem requires architecture resnet18, resnet34 or resnet50; use one of them, or remove stem",
    cel: Some(
        "!has(self.stem) || self.stem == 'Cifar' || self.architecture in ['resnet18', 'resnet34', 'resnet50']",
    ),
    holds: |model| model.stem == Stem::default() || model.architecture.has_variable_stem(),
}];

/// Rules of the data.
pub(super) const DATA: [Rule<Data>; 2] = [
    Rule {
        field: "imageSize",
        problem: "imageSize requires dataset image-folder or webdataset, because the images of other data sets have a fixed \
                  size; remove the field",
        cel: Some("!has(self.imageSize) || self.dataset in ['image-folder', 'webdataset']"),
        holds: |data| data.image_size.is_none() || data.dataset.is_encoded(),
    },
    Rule {
        field: "additional",
        problem: "additional is unsupported with dataset image-folder and webdataset; add the images to the folders or shards \
                  of the data set",
        cel: Some("!has(self.additional) || !(self.dataset in ['image-folder', 'webdataset'])"),
        holds: |data| data.additional.is_none() || !data.dataset.is_encoded(),
    },
];

/// Rules of the augmentation.
pub(super) const AUGMENTATION: [Rule<Augmentation>; 1] = [Rule {
    field: "crop",
    problem: "crop and randomResizedCrop are mutually exclusive; remove one of them",
    cel: Some("!has(self.crop) || !has(self.randomResizedCrop)"),
    holds: |augmentation| augmentation.crop.is_none() || augmentation.random_resized_crop.is_none(),
}];

/// Rules of the evaluation.
pub(super) const EVALUATION: [Rule<Evaluation>; 1] = [Rule {
    field: "target.attack",
    problem: "target.attack must be the name of an attack of evaluation.final in the results, for example \"pgd-20\", \
                  \"pgd-50-10\" for 10 restarts, or \"autoattack\"; remove the field for the worst case",
    // Lists instead of strings, because the API server cannot estimate the length of a number as text.
    cel: Some(
        "!has(self.target) || !has(self.target.attack) || self.final.map(a, \
              has(a.pgd) ? ['pgd', string(a.pgd.steps), string(a.pgd.?restarts.orValue(1))] : \
              has(a.cw) ? ['cw', string(a.cw.steps), string(a.cw.?restarts.orValue(1))] : \
              has(a.apgdCe) ? ['apgd', 'ce', string(a.apgdCe.?steps.orValue(100)), string(a.apgdCe.?restarts.orValue(1))] : \
              has(a.apgdT) ? ['apgd', 't', string(a.apgdT.?steps.orValue(100)), string(a.apgdT.?targets.orValue(9))] : \
              has(a.fabT) ? ['fab', 't', string(a.fabT.?steps.orValue(100)), string(a.fabT.?targets.orValue(9))] : \
              has(a.square) ? ['square', string(a.square.?queries.orValue(5000)), string(a.square.?restarts.orValue(1))] : \
              ['autoattack', '1']).exists(name, self.target.attack.split('-') + (name[name.size() - 1] == '1' ? \
              ['1'] : []) == name)",
    ),
    holds: |evaluation| {
        let wanted = evaluation.target.as_ref().and_then(|target| target.attack.as_ref());
        wanted
            .is_none_or(|wanted| evaluation.final_.iter().map(FinalAttack::name).any(|name| name == *wanted))
    },
}];

/// Rules of the schedule.
pub(super) const SCHEDULE: [Rule<Schedule>; 1] = [Rule {
    field: "warmupEpochs",
    problem: "warmupEpochs must be at most epochs and requires decay.piecewise or decay.cosine, because decay.cyclic has no \
              separate warm-up",
    cel: Some(
        "self.warmupEpochs == 0 || (self.warmupEpochs <= self.epochs && has(self.decay) && !has(self.decay.cyclic))",
    ),
    holds: |schedule| {
        schedule.warmup_epochs == 0
            || (schedule.warmup_epochs <= schedule.epochs && !matches!(schedule.decay(), Decay::Cyclic(_)))
    },
}];

const PATH_PROBLEM: &str = "path must be relative to the root of the volume, without \"..\"";
const PATH_CEL: &str = "!self.path.startsWith('/') && !('/' + self.path + '/').contains('/../')";

/// Rules of a directory on a volume.
pub(super) const VOLUME_SOURCE: [Rule<VolumeSource>; 1] = [Rule {
    field: "path",
    problem: PATH_PROBLEM,
    cel: Some(PATH_CEL),
    holds: |source| is_relative(&source.path),
}];

/// Rules of a file on a volume.
pub(super) const VOLUME_FILE: [Rule<VolumeFile>; 1] = [Rule {
    field: "path",
    problem: PATH_PROBLEM,
    cel: Some(PATH_CEL),
    holds: |file| is_relative(&file.path),
}];

/// The rules of the training spec in the form of `x-kubernetes-validations`.
pub(super) fn training_schema() -> Vec<Value> {
    let immutable = json!({
        "rule": "self == oldSelf",
        "message": "spec.training is immutable; create a new DatJob for another training"
    });
    let step_size = json!({
        "rule": STEP_SIZE_CEL,
        "message": "attack.*.stepSize must be at most 1 with norm Linf, in units of the pixel range [0, 1]; for example \"2/255\"",
        "fieldPath": ".attack"
    });
    [immutable, step_size].into_iter().chain(Rule::schema(&TRAINING)).collect()
}

/// Whether the step size is at most 1 with norm Linf. In Rust, [`Training::check`] compares all sizes.
const STEP_SIZE_CEL: &str = "[self.attack].all(attack, [has(attack.pgd) ? attack.pgd.?stepSize.orValue('') : has(attack.fgsm) \
    ? attack.fgsm.?stepSize.orValue('') : attack.?nFgsm.?stepSize.orValue('')].all(size, size == '' || self.threatModel.norm != \
    'Linf' || !size.matches('^[0-9]{1,6}(\\\\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?$') || (size.contains('/') ? \
    double(size.split('/')[0]) / double(size.split('/')[1]) : double(size)) <= 1.0))";

/// Rules of the training spec.
pub(super) const TRAINING: [Rule<Training>; 8] = [
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

fn is_relative(path: &str) -> bool {
    !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests;
