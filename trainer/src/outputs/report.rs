//! `report.html`: tables and plots of a finished training, in one file that refers to no other. Pure: it computes the
//! values that `templates/report.html` shows.

use askama::Template;
use datjob_api::report::{AttackResult, Count, CountsByClass};

use super::{history::History, plot::Chart};
use crate::{
    checkpoint::results::{Document, Time},
    outputs::estimates::{AccuracyEstimate, CONFIDENCE, METHOD, Measure},
};

mod curves;

use curves::EpochCurves;

/// The file's name.
pub const FILE: &str = "report.html";

/// The page, in the order of its sections.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    job: &'a str,
    subtitle: String,
    accuracies: Vec<AccuracyRow<'a>>,
    averaged: bool,
    best_epoch: u32,
    method: &'static str,
    /// In percent.
    confidence: f64,
    attacks: Vec<AttackSection<'a>>,
    by_epoch: Option<EpochCurves<'a>>,
    sweeps: Vec<Chart>,
    certified: Option<Chart>,
    by_class: Option<Vec<ClassRow>>,
    provenance: Vec<(&'static str, String)>,
    spec: String,
}

/// An accuracy on the test set. Accuracy and interval are in percent.
struct AccuracyRow<'a> {
    name: &'a str,
    accuracy: String,
    interval: String,
    images: String,
}

/// The components and the warnings of an attack.
struct AttackSection<'a> {
    name: &'a str,
    stages: Vec<StageRow<'a>>,
    warnings: &'a [String],
}

/// The accuracy after a component of an attack, in percent.
struct StageRow<'a> {
    name: &'a str,
    images: String,
    accuracy: String,
}

/// The accuracy on the images of a class.
struct ClassRow {
    images: u64,
    clean: Bar,
    worst_case: Bar,
}

/// An accuracy in percent, with the width of its bar in rem.
struct Bar {
    width: String,
    percent: String,
}

/// Renders the report on a finished training. It fails if a plot cannot be drawn.
pub fn html(document: &Document, history: &History) -> Result<String, String> {
    let Document { job_uid, results, training, .. } = document;
    let page = Page {
        job: job_uid,
        subtitle: format!(
            "{} on {}, trained against {:?} perturbations with ε = {}",
            training.model.architecture,
            training.data.dataset.name(),
            training.threat_model.norm,
            training.threat_model.epsilon
        ),
        accuracies: accuracies(document),
        averaged: results.averaged,
        best_epoch: results.best_epoch,
        method: METHOD,
        confidence: CONFIDENCE * 100.0,
        attacks: results.attacks.iter().map(attack).collect(),
        by_epoch: curves::by_epoch(history)?,
        sweeps: curves::sweeps(document)?,
        certified: curves::certified(document)?,
        by_class: results.by_class.as_ref().map(by_class),
        provenance: provenance(document),
        spec: training.to_json(),
    };
    page.render().map_err(|error| error.to_string())
}

fn accuracies(Document { accuracies, .. }: &Document) -> Vec<AccuracyRow<'_>> {
    let shown = accuracies.figures.iter().filter(|figure| figure.measure != Measure::Stage);
    shown
        .map(|AccuracyEstimate { name, correct, total, percent, lower, upper, .. }| AccuracyRow {
            name,
            accuracy: format!("{percent:.2}"),
            interval: format!("{lower:.2} to {upper:.2}"),
            images: format!("{correct} of {total}"),
        })
        .collect()
}

fn attack(AttackResult { attack, total, stages, warnings, .. }: &AttackResult) -> AttackSection<'_> {
    let stages = stages.iter().map(|stage| StageRow {
        name: &stage.name,
        images: format!("{} of {total}", stage.correct),
        accuracy: Count { correct: stage.correct, total: *total }.percent(),
    });
    AttackSection { name: attack, stages: stages.collect(), warnings }
}

fn by_class(CountsByClass { total, clean, worst_case, .. }: &CountsByClass) -> Vec<ClassRow> {
    let bar = |correct: u64, total: u64| {
        let count = Count { correct, total };
        Bar { width: format!("{:.1}", count.fraction() * 8.0), percent: count.percent() }
    };
    let counts = total.iter().zip(clean).zip(worst_case);
    counts
        .map(|((&total, &clean), &worst)| ClassRow {
            images: total,
            clean: bar(clean, total),
            worst_case: bar(worst, total),
        })
        .collect()
}

fn provenance(Document { results, last, time, .. }: &Document) -> Vec<(&'static str, String)> {
    let Time { started_at, finished_at, training_seconds, attack_seconds, communication_seconds, .. } = time;
    let mut rows = vec![("weights", format!("{}, SHA-256 {}", results.weights, results.sha256))];
    if let Some(last) = last {
        rows.push(("weights after the last epoch", format!("{}, SHA-256 {}", last.weights, last.sha256)));
    }
    if let Some(started_at) = started_at {
        rows.push(("started", started_at.to_string()));
    }
    rows.extend([
        ("finished", finished_at.to_string()),
        ("training spec", format!("SHA-256 {}", results.training_hash)),
        ("seed", results.seed.to_string()),
        ("versions", format!("DatJob {}, libtorch {}", results.trainer_version, results.libtorch_version)),
        ("device", results.devices.join("; ")),
        ("world", format!("{} ranks with {} CPU threads each", results.world_size, results.threads)),
        (
            "training",
            format!(
                "{training_seconds:.1} s in {} epochs; attack {attack_seconds:.1} s, communication not hidden by \
                 computation {communication_seconds:.1} s; {} bytes sent per step",
                time.epochs, time.bytes_per_step
            ),
        ),
        (
            "evaluation",
            format!("{:.1} s on the validation split, {:.1} s on the test set", time.validation_seconds, time.test_seconds),
        ),
    ]);
    rows
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        checkpoint::results::Accuracies,
        outputs::{example::document, history::tests::history},
    };

    #[test]
    fn a_report_shows_what_was_measured() {
        let report = html(&document(), &history(30)).unwrap();
        // A look at it: cargo test with DATJOB_REPORT=/tmp/report.html.
        if let Some(path) = std::env::var_os("DATJOB_REPORT") {
            std::fs::write(Path::new(&path), &report).unwrap();
        }
        for title in [
            "Results on the test set",
            "autoattack, by component",
            "Training loss",
            "Accuracy on the validation split",
            "under pgd-10, averaged",
            "Accuracy against ε",
            "Accuracy against steps",
            "Certified accuracy by radius",
            "By class",
            "Training spec</h2>",
            "30.32 to 50.28 %",
        ] {
            assert!(report.contains(title), "{title}");
        }
        assert_eq!(report.matches("<svg").count(), 6);
    }

    #[test]
    fn nothing_from_outside_is_markup_and_nothing_is_fetched() {
        let report = html(&document(), &history(3)).unwrap();
        assert!(
            report.contains("&#60;job &#38; co&#62;") && report.contains("&#60;/pre&#62;&#60;script&#62;")
        );
        assert!(report.contains("A &#60;CPU&#62;") && report.contains("gradients &#60;b&#62;."));
        for markup in ["<script", "<link", "<img", "src=", "href=", "@import", "url("] {
            assert!(!report.contains(markup), "{markup}");
        }
    }

    #[test]
    fn captions_and_warnings_of_curves_are_escaped() {
        let mut history = history(2);
        let accuracy = history.epochs[1].accuracy.as_mut().unwrap();
        accuracy.robust.attack = "<pgd>".into();
        accuracy.overfitting = Some("<overfitting>".into());
        let report = html(&document(), &history).unwrap();
        assert!(report.contains("</i>under &#60;pgd&#62;, raw</span>"), "{report}");
        assert!(report.contains("<p class=\"w\">&#60;overfitting&#62;.</p>"), "{report}");
    }

    #[test]
    fn what_was_not_measured_has_no_place() {
        let mut document = document();
        document.results.sweep.clear();
        document.results.certified.clear();
        document.results.by_class = None;
        document.results.attacks.iter_mut().for_each(|attack| attack.stages.clear());
        document.accuracies = Accuracies::from(&document.results);
        let report = html(&document, &History::with_unknown_start("hash")).unwrap();
        for title in ["Training</h2>", "Accuracy against", "Certified", "By class", "by component", "<svg"] {
            assert!(!report.contains(title), "{title}");
        }
    }
}
