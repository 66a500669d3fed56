//! `MODEL_CARD.md`: training, threat model, accuracy, intended use, limits and provenance of the weights (Mitchell et al.,
//! "Model cards for model reporting"). Pure.

use std::fmt::Write as _;

use datjob_api::{
    Training,
    report::Results,
    training::{Communication, CutMix, Norm, RandomResizedCrop, ThreatModel, Variation},
};
use datjob_data::weights::WeightsCard;
use serde::Serialize;

use crate::{
    checkpoint::results::{Accuracies, Document, Time},
    outputs::{
        estimates::{CONFIDENCE, METHOD, Measure},
        history, report, robustbench, tensorboard,
    },
};

/// The file's name.
pub const FILE: &str = "MODEL_CARD.md";

/// The model card of a finished training.
pub fn markdown(document: &Document) -> String {
    let Document { job_uid, results, training, .. } = document;
    let model = &training.model;
    let dataset = training.data.dataset.name();
    [
        format!("# {}, adversarially trained on {dataset}\n", model.architecture),
        format!(
            "Weights from the job {}. DatJob {} trained them to classify {dataset} images correctly under adversarial \
             perturbations.\n",
            inline_code(job_uid),
            results.trainer_version
        ),
        training_section(document),
        threat_model_section(&training.threat_model),
        accuracy_section(document),
        intended_use_section(training, results),
        provenance_section(document),
        format!(
            "## Files\n\n`{}`: all counts, the spec and timings. `{}`: the metrics of each epoch. `{}`: tables and plots. \
             `{}`: the metrics for TensorBoard. `{}`: the fields of RobustBench; fill in link, name, authors and venue \
             before publishing the model.\n",
            crate::checkpoint::results::FILE,
            history::FILE,
            report::FILE,
            tensorboard::DIRECTORY,
            robustbench::FILE
        ),
    ]
    .join("\n")
}

/// A description of the augmentation of training images.
fn augmentation(variation: &Variation) -> String {
    let Variation { crop, flip, random_resized_crop, cutout, cut_mix } = *variation;
    let mut steps = Vec::new();
    if crop > 0 {
        steps.push(format!("random crop after padding by {crop} pixels"));
    }
    if let Some(RandomResizedCrop { min_area }) = random_resized_crop {
        steps.push(format!("random resized crop of at least {min_area} of the area"));
    }
    if flip {
        steps.push("horizontal flips".to_owned());
    }
    if cutout > 0 {
        steps.push(format!("cutout of {cutout}×{cutout} pixels"));
    }
    if let Some(CutMix { alpha }) = cut_mix {
        steps.push(format!("CutMix with α = {alpha}"));
    }
    if steps.is_empty() { "none".to_owned() } else { steps.join(", ") }
}

fn training_section(Document { results, training, contents, trained_on, .. }: &Document) -> String {
    let Training {
        model,
        data,
        attack,
        objective,
        optimizer,
        schedule,
        catastrophic_overfitting,
        weight_perturbation,
        smoothing,
        averaging,
        communication,
        // In other sections, or without effect on the weights.
        seed: _,
        threat_model: _,
        checkpoint: _,
        evaluation: _,
    } = training;
    let mut text = "## Training\n\n| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    let [channels, height, width] = contents.image_shape;
    row("network", spec_json(model));
    row("input", format!("{channels}×{height}×{width} pixels in [0, 1]; do not normalize them first"));
    row("classes", contents.classes.to_string());
    let &WeightsCard { training_images, validation_count, validation_seed, .. } = trained_on;
    row(
        "images",
        format!(
            "{} of the {} training set; {validation_count} held out for validation, drawn with seed {validation_seed}",
            training_images.saturating_sub(validation_count),
            data.dataset.name()
        ),
    );
    if let Some(additional) = &data.additional {
        row("additional images", spec_json(additional));
    }
    row("augmentation", augmentation(&data.variation()));
    row("attack", spec_json(attack));
    row("objective", spec_json(objective));
    if let Some(response) = catastrophic_overfitting {
        row("catastrophic overfitting", spec_json(response));
    }
    if let Some(perturbation) = weight_perturbation {
        row("weight perturbation", spec_json(perturbation));
    }
    if let Some(smoothing) = smoothing {
        row("smoothing", spec_json(smoothing));
    }
    row("optimizer", spec_json(optimizer));
    row("schedule", spec_json(schedule));
    if let Some(averaging) = averaging {
        row("averaging", spec_json(averaging));
    }
    if *communication != Communication::default() {
        row("communication", spec_json(communication));
    }
    let weights = if results.averaged { "averaged weights" } else { "weights" };
    row(
        "selection",
        format!(
            "the {weights} after epoch {}, by robust accuracy on the validation split",
            results.best_epoch
        ),
    );
    text
}

fn threat_model_section(ThreatModel { norm, epsilon }: &ThreatModel) -> String {
    let meaning = match norm {
        Norm::Linf => format!("ℓ∞, ε = {epsilon}: no pixel changes by more than ε"),
        Norm::L2 => format!("ℓ2, ε = {epsilon}: the ℓ2 norm of the change is at most ε"),
    };
    format!(
        "## Threat model\n\n{meaning}, in units of the pixel range [0, 1]. The attacker knows the network and its weights. \
         Any wrong class counts as success.\n"
    )
}

fn accuracy_section(Document { results, accuracies, .. }: &Document) -> String {
    let Accuracies { figures, .. } = accuracies;
    let mut text = format!(
        "## Accuracy\n\nMeasured once on the test set, after the weights were selected. Intervals: {METHOD}, {} %. They \
         cover only the sampling of test images; another seed gives another network.\n\n| | accuracy | interval | \
         images |\n|---|---|---|---|\n",
        CONFIDENCE * 100.0
    );
    for estimate in figures {
        let indent = if estimate.measure == Measure::Stage { "… " } else { "" };
        let _ = writeln!(
            text,
            "| {indent}{} | {:.2} % | {:.2} to {:.2} % | {} of {} |",
            estimate.name, estimate.percent, estimate.lower, estimate.upper, estimate.correct, estimate.total
        );
    }
    for warning in results.attacks.iter().flat_map(|attack| &attack.warnings) {
        let _ = write!(text, "\nWarning: {warning}\n");
    }
    text
}

fn intended_use_section(Training { data, evaluation, .. }: &Training, results: &Results) -> String {
    let mut text = format!(
        "## Intended use and limits\n\nFor research on robust classification of images like those of {}. Do not use the \
         weights for decisions about people, or as the only defence of a system.\n\n- Accuracies under attack are upper \
         bounds: a stronger attack may lower them.\n- Only the accuracies above were measured. Other perturbation sizes, \
         norms and changes (blur, rotations, patches) were not, and neither were images outside the test set.\n",
        data.dataset.name()
    );
    if !results.attacks.iter().any(|attack| attack.attack == "autoattack") {
        text.push_str(
            "- AutoAttack was not run, so these accuracies are not comparable with RobustBench's.\n",
        );
    }
    match &evaluation.certify {
        None => text.push_str("- Certified accuracy was not measured.\n"),
        Some(certify) => {
            let _ = writeln!(
                text,
                "- Certified accuracies are those of the smoothed network (the most frequent class under noise), in ℓ2. \
                 Each certificate is wrong with probability at most {}; the intervals do not include this.",
                certify.alpha
            );
        }
    }
    text
}

fn provenance_section(Document { results, last, time, .. }: &Document) -> String {
    let Time { started_at, finished_at, training_seconds, .. } = time;
    let mut text = "## Provenance\n\n| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    row("weights", format!("{}, SHA-256 `{}`", inline_code(&results.weights), results.sha256));
    if let Some(last) = last {
        row(
            "weights after the last epoch",
            format!("{}, SHA-256 `{}`", inline_code(&last.weights), last.sha256),
        );
    }
    row("training spec", format!("SHA-256 `{}`", results.training_hash));
    row("seed", results.seed.to_string());
    row("trainer", format!("DatJob {}", results.trainer_version));
    row("libtorch", results.libtorch_version.clone());
    row("device", inline_code(&results.devices.join("; ")));
    row("world", format!("{} ranks with {} CPU threads each", results.world_size, results.threads));
    if let Some(started_at) = started_at {
        row("started", started_at.to_string());
    }
    row("finished", finished_at.to_string());
    row("training time", format!("{training_seconds:.0} s, without evaluations"));
    text.push_str(
        "\nParameter names in the files are RobustBench's or torchvision's:\n\n```python\nfrom safetensors.torch import \
         load_file\nstate = load_file(\"best.safetensors\")\n```\n",
    );
    text
}

/// A part of the spec as inline JSON.
fn spec_json(part: &impl Serialize) -> String {
    inline_code(&serde_json::to_string(part).unwrap_or_default())
}

/// Untrusted text as inline code of a table cell. Characters that could end the code or the cell are replaced.
fn inline_code(text: &str) -> String {
    let sanitize = |character: char| {
        if matches!(character, '`' | '|') || character.is_control() { '_' } else { character }
    };
    format!("`{}`", text.chars().map(sanitize).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::example::document;

    #[test]
    fn shows_accuracies_spec_and_provenance() {
        let card = markdown(&document());
        for part in [
            "# wide-resnet-28-10, adversarially trained on cifar10",
            "| autoattack | 40.00 % | 30.32 to 50.28 % | 40 of 100 |",
            "| … square | 40.00 % |",
            "Warning: Square's gain",
            "| attack | `{\"pgd\":{\"steps\":10}}` |",
            "ℓ∞, ε = 8/255",
            "| seed | 7 |",
            "SHA-256 `abc`",
            "libtorch | 2.11.0",
        ] {
            assert!(card.contains(part), "{part}\n{card}");
        }
        assert!(!card.contains("AutoAttack was not run"));
    }

    #[test]
    fn names_additional_images() {
        let mut document = document();
        assert!(!markdown(&document).contains("additional images"));
        let additional = serde_json::json!({
            "source": {"volume": {"persistentVolumeClaim": {"claimName": "generated"}, "path": "1m.npz"}},
            "perBatch": 0.7
        });
        document.training.data.additional = Some(serde_json::from_value(additional).unwrap());
        let card = markdown(&document);
        let row = card.lines().find(|line| line.starts_with("| additional images | ")).unwrap();
        assert!(row.contains("1m.npz") && row.contains("0.7"), "{row}");
    }

    #[test]
    fn names_evaluations_that_were_not_run() {
        let mut document = document();
        document.results.attacks.remove(0);
        document.training.evaluation.certify = None;
        let card = markdown(&document);
        for sentence in ["AutoAttack was not run", "Certified accuracy was not measured"] {
            assert!(card.contains(sentence), "{sentence}\n{card}");
        }
    }

    #[test]
    fn escapes_markup_in_the_job_uid() {
        let card = markdown(&Document { job_uid: "a`|\n# b".into(), ..document() });
        assert!(card.contains("`a___# b`"), "{card}");
    }
}
