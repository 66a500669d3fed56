//! `report.html`: the results and how they came about, in one file that needs nothing else and no network.

use std::fmt::Write as _;

use datjob_api::report::{AttackResult, Count, Results};

use super::{
    history::History,
    html::{escape, table},
};
use crate::{
    checkpoint::results::{Document, Time},
    outputs::estimates::{AccuracyEstimate, CONFIDENCE, METHOD, Measure},
};

mod curves;

/// The file's name.
pub const FILE: &str = "report.html";

const STYLE: &str = "\
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:.6rem 0}th,td{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #e4e4e4}
td{font-variant-numeric:tabular-nums}.n{display:block;text-align:right}.s{padding-left:1.2rem;color:#555}
figure{margin:1.2rem 0}figcaption span{margin-left:1rem;white-space:nowrap}
figcaption i{display:inline-block;width:1.4rem;height:.25rem;margin-right:.4rem;vertical-align:middle}
figure,tr{break-inside:avoid}svg{max-width:100%;height:auto}pre{background:#f6f6f6;padding:1rem;overflow:auto;font-size:.85rem}
.w{border-left:4px solid #d55e00;padding:.2rem .8rem;background:#fff6ef}
.b{display:inline-block;height:.7rem;background:#0072b2;margin-right:.5rem}.b.r{background:#d55e00}
.wide{overflow-x:auto}";

/// The report on a finished training; an error is a plot that could not be drawn.
pub fn html(document: &Document, history: &History) -> Result<String, String> {
    let Document { job_uid, results, training, .. } = document;
    let name = escape(job_uid);
    let subtitle = escape(&format!(
        "{} on {}, trained against {:?} perturbations with ε = {}",
        training.model.architecture,
        training.data.dataset.name(),
        training.threat_model.norm,
        training.threat_model.epsilon
    ));
    let body = [
        format!("<h1>{name}</h1>\n<p>{subtitle}</p>\n"),
        figures(document),
        stages(&results.attacks),
        section("Training", &curves::over_epochs(history)?),
        section("Accuracy against the attack's strength", &curves::sweeps(document)?),
        section("Certified accuracy", &curves::certified(document)?),
        section("By class", &by_class(results)),
        section("Provenance", &provenance(document)),
        section("Training spec", &format!("<pre>{}</pre>\n", escape(&training.to_json()))),
    ];
    let head = format!("<meta charset=\"utf-8\">\n<title>{name}</title>\n<style>\n{STYLE}\n</style>\n");
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n{head}</head>\n<body>\n{}</body>\n</html>\n",
        body.concat()
    ))
}

/// A part with its title; nothing where there is nothing in it.
fn section(title: &str, content: &str) -> String {
    if content.is_empty() { String::new() } else { format!("<h2>{title}</h2>\n{content}") }
}

fn figures(Document { results, accuracies, .. }: &Document) -> String {
    let shown = accuracies.figures.iter().filter(|figure| figure.measure != Measure::Stage);
    let rows: Vec<Vec<String>> = shown.map(row).collect();
    let table = table(&["", "accuracy", "interval", "images"], &rows);
    let weights = if results.averaged { "the averaged weights" } else { "the weights" };
    section(
        "Results on the test set",
        &format!(
            "{table}<p>For {weights} after epoch {}, selected on the validation split. Intervals: {METHOD}, {} %. They \
             cover only the sampling of test images; another seed gives another network.</p>\n",
            results.best_epoch,
            CONFIDENCE * 100.0
        ),
    )
}

fn row(figure: &AccuracyEstimate) -> Vec<String> {
    let AccuracyEstimate { name, correct, total, percent, lower, upper, .. } = figure;
    vec![
        escape(name),
        number(&format!("{percent:.2} %")),
        number(&format!("{lower:.2} to {upper:.2} %")),
        number(&format!("{correct} of {total}")),
    ]
}

fn number(text: &str) -> String {
    format!("<span class=\"n\">{text}</span>")
}

/// The parts of attacks that have such, and what is doubtful.
fn stages(attacks: &[AttackResult]) -> String {
    let mut text = String::new();
    for attack in attacks {
        if !attack.stages.is_empty() {
            let rows: Vec<Vec<String>> = attack
                .stages
                .iter()
                .map(|stage| {
                    let left = Count { correct: stage.correct, total: attack.total };
                    let images = number(&format!("{} of {}", left.correct, left.total));
                    vec![escape(&stage.name), images, number(&format!("{} %", left.percent()))]
                })
                .collect();
            let title = format!("{}, by component", escape(&attack.attack));
            text.push_str(&section(&title, &table(&["after", "images correct", "accuracy"], &rows)));
        }
        for warning in &attack.warnings {
            let _ =
                writeln!(text, "<p class=\"w\"><b>{}</b>: {}</p>", escape(&attack.attack), escape(warning));
        }
    }
    text
}

fn by_class(results: &Results) -> String {
    let Some(by_class) = &results.by_class else { return String::new() };
    let bar = |correct: u64, total: u64, class: &str| {
        let count = Count { correct, total };
        format!(
            "<span class=\"b{class}\" style=\"width:{:.1}rem\"></span>{} %",
            count.share() * 8.0,
            count.percent()
        )
    };
    let rows: Vec<Vec<String>> = by_class
        .total
        .iter()
        .zip(&by_class.clean)
        .zip(&by_class.worst_case)
        .enumerate()
        .map(|(class, ((&total, &clean), &worst))| {
            vec![
                class.to_string(),
                number(&total.to_string()),
                bar(clean, total, ""),
                bar(worst, total, " r"),
            ]
        })
        .collect();
    table(&["class", "images", "clean", "worst case"], &rows)
}

fn provenance(Document { results, last, device, time, .. }: &Document) -> String {
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
        ("device", format!("{device} (rank 0)")),
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
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_owned(), escape(&value)]).collect();
    format!("<div class=\"wide\">{}</div>\n", table(&["", ""], &rows))
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
        assert!(report.contains("&lt;job &amp; co&gt;") && report.contains("&lt;/pre&gt;&lt;script&gt;"));
        assert!(report.contains("A &lt;CPU&gt;") && report.contains("gradients &lt;b&gt;."));
        for markup in ["<script", "<link", "<img", "src=", "href=", "@import", "url("] {
            assert!(!report.contains(markup), "{markup}");
        }
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
