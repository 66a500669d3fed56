//! `MODEL_CARD.md`: what the weights are, what they are for and what not, and how they were measured (Mitchell et al.,
//! "Model cards for model reporting"). It says what the training knows and nothing else.

use std::fmt::Write as _;

use datjob_api::{
    Training,
    report::Results,
    training::{CutMix, Norm, RandomResizedCrop, ThreatModel, Variation},
};
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

/// The card of a finished training.
pub fn markdown(document: &Document) -> String {
    let Document { job_uid, results, training, .. } = document;
    let model = &training.model;
    let dataset = training.data.dataset.name();
    [
        format!("# {}, adversarially trained on {dataset}\n", model.architecture),
        format!(
            "Weights from the job {}. DatJob {} trained them to classify {dataset} images correctly under adversarial \
             perturbations.\n",
            code(job_uid),
            results.trainer_version
        ),
        how_it_was_trained(document),
        threat_model(&training.threat_model),
        figures(document),
        use_and_limits(training, results),
        provenance(document),
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

/// How training images were varied, in words.
fn augmentation(variation: &Variation) -> String {
    let Variation { crop, flip, random_resized_crop, cutout, cut_mix } = *variation;
    let mut words = Vec::new();
    if crop > 0 {
        words.push(format!("random crop after padding by {crop} pixels"));
    }
    if let Some(RandomResizedCrop { min_area }) = random_resized_crop {
        words.push(format!("random resized crop of at least {min_area} of the area"));
    }
    if flip {
        words.push("horizontal flips".to_owned());
    }
    if cutout > 0 {
        words.push(format!("cutout of {cutout}×{cutout} pixels"));
    }
    if let Some(CutMix { alpha }) = cut_mix {
        words.push(format!("CutMix with α = {alpha}"));
    }
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn how_it_was_trained(Document { results, training, contents, .. }: &Document) -> String {
    let Training { model, data, attack, objective, optimizer, schedule, .. } = training;
    let mut text = "## Training\n\n| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    let [channels, height, width] = contents.image_shape;
    row("network", json(model));
    row("input", format!("{channels}×{height}×{width} pixels in [0, 1]; do not normalize them first"));
    row("classes", contents.classes.to_string());
    let count = data.validation.count;
    let images = contents.training_images.saturating_sub(count as usize);
    row(
        "images",
        format!("{images} of the {} training set; {count} held out for validation", data.dataset.name()),
    );
    row("augmentation", augmentation(&data.variation()));
    row("attack", json(attack));
    row("objective", json(objective));
    if let Some(perturbation) = &training.weight_perturbation {
        row("weight perturbation", json(perturbation));
    }
    if let Some(smoothing) = &training.smoothing {
        row("smoothing", json(smoothing));
    }
    row("optimizer", json(optimizer));
    row("schedule", json(schedule));
    if let Some(averaging) = &training.averaging {
        row("averaging", json(averaging));
    }
    let chosen = if results.averaged { "averaged weights" } else { "weights" };
    row(
        "selection",
        format!(
            "the {chosen} after epoch {}, by robust accuracy on the validation split",
            results.best_epoch
        ),
    );
    text
}

fn threat_model(ThreatModel { norm, epsilon }: &ThreatModel) -> String {
    let meaning = match norm {
        Norm::Linf => format!("ℓ∞, ε = {epsilon}: no pixel changes by more than ε"),
        Norm::L2 => format!("ℓ2, ε = {epsilon}: the ℓ2 norm of the change is at most ε"),
    };
    format!(
        "## Threat model\n\n{meaning}, in units of the pixel range [0, 1]. The attacker knows the network and its weights. \
         Any wrong class counts as success.\n"
    )
}

fn figures(Document { results, accuracies, .. }: &Document) -> String {
    let Accuracies { figures, .. } = accuracies;
    let mut text = format!(
        "## Accuracy\n\nMeasured once on the test set, after the weights were selected. Intervals: {METHOD}, {} %. They \
         cover only the sampling of test images; another seed gives another network.\n\n| | accuracy | interval | \
         images |\n|---|---|---|---|\n",
        CONFIDENCE * 100.0
    );
    for figure in figures {
        let indent = if figure.measure == Measure::Stage { "… " } else { "" };
        let _ = writeln!(
            text,
            "| {indent}{} | {:.2} % | {:.2} to {:.2} % | {} of {} |",
            figure.name, figure.percent, figure.lower, figure.upper, figure.correct, figure.total
        );
    }
    for warning in results.attacks.iter().flat_map(|attack| &attack.warnings) {
        let _ = write!(text, "\nWarning: {warning}\n");
    }
    text
}

fn use_and_limits(Training { data, evaluation, .. }: &Training, results: &Results) -> String {
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

fn provenance(Document { results, last, device, time, .. }: &Document) -> String {
    let Time { started_at, finished_at, training_seconds, .. } = time;
    let mut text = "## Provenance\n\n| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    row("weights", format!("{}, SHA-256 `{}`", code(&results.weights), results.sha256));
    if let Some(last) = last {
        row("weights after the last epoch", format!("{}, SHA-256 `{}`", code(&last.weights), last.sha256));
    }
    row("training spec", format!("SHA-256 `{}`", results.training_hash));
    row("seed", results.seed.to_string());
    row("trainer", format!("DatJob {}", results.trainer_version));
    row("libtorch", results.libtorch_version.clone());
    row("device", format!("{} (rank 0)", code(device)));
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

/// A part of the spec, as it is written.
fn json(part: &impl Serialize) -> String {
    code(&serde_json::to_string(part).unwrap_or_default())
}

/// Text from outside as code in a cell of a table, where nothing of it is markup.
fn code(text: &str) -> String {
    let plain = |character: char| {
        if matches!(character, '`' | '|') || character.is_control() { '_' } else { character }
    };
    format!("`{}`", text.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::example::document;

    #[test]
    fn a_card_says_what_was_measured_and_where_it_comes_from() {
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
    fn what_was_not_done_is_said() {
        let mut document = document();
        document.results.attacks.remove(0);
        document.training.evaluation.certify = None;
        let card = markdown(&document);
        for sentence in ["AutoAttack was not run", "Certified accuracy was not measured"] {
            assert!(card.contains(sentence), "{sentence}\n{card}");
        }
    }

    #[test]
    fn a_name_is_no_markup() {
        let card = markdown(&Document { job_uid: "a`|\n# b".into(), ..document() });
        assert!(card.contains("`a___# b`"), "{card}");
    }
}
