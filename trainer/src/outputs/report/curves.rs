//! The plots of a report; pure.

use datjob_api::{Epsilon, report::Count};

use crate::{
    checkpoint::results::Document,
    outputs::{
        estimates::{AccuracyEstimate, Measure},
        history::{EpochRecord, History},
        plot::{Chart, Plot, Point, Series},
    },
};

/// The metrics of training and validation by epoch.
pub(super) struct EpochCurves<'a> {
    /// Accuracy on the validation split, if it was measured.
    pub accuracy: Option<Chart>,
    /// Descriptions of catastrophic overfitting, without a full stop.
    pub overfitting: Vec<&'a str>,
    /// Loss and learning rate.
    pub optimization: Vec<Chart>,
}

/// Draws accuracy on the validation split, loss and learning rate by epoch. `None` if the history has no epoch.
pub(super) fn by_epoch(history: &History) -> Result<Option<EpochCurves<'_>>, String> {
    if history.epochs.is_empty() {
        return Ok(None);
    }
    let series = |name: &str, value: &dyn Fn(&EpochRecord) -> Option<f64>| {
        let point = |record: &EpochRecord| {
            Some(Point { x: f64::from(record.epoch), y: value(record)?, interval: None })
        };
        Series { name: name.to_owned(), points: history.epochs.iter().filter_map(point).collect() }
    };
    let percent = |count: Count| count.fraction() * 100.0;
    let loss = Plot {
        title: "Training loss",
        x: "epoch",
        y: "loss",
        percent: false,
        whole: true,
        series: vec![series("mean over the epoch", &|record| Some(record.loss))],
    };
    let rate = Plot {
        title: "Learning rate",
        x: "epoch",
        y: "learning rate",
        percent: false,
        whole: true,
        series: vec![series("last step of the epoch", &|record| Some(record.learning_rate))],
    };
    let attack = history.epochs.iter().find_map(|record| Some(&record.accuracy.as_ref()?.robust.attack));
    let robust = attack.map_or_else(|| "robust".to_owned(), |attack| format!("under {attack}"));
    let averages = history
        .epochs
        .iter()
        .any(|record| record.accuracy.as_ref().is_some_and(|accuracy| accuracy.averaging.is_some()));
    let accuracies = if averages {
        let both = |record: &EpochRecord| record.accuracy.as_ref()?.averaging;
        vec![
            series("clean, raw weights", &|record| Some(percent(both(record)?.raw_clean))),
            series(&format!("{robust}, raw"), &|record| Some(percent(both(record)?.raw_robust))),
            series("clean, averaged", &|record| Some(percent(both(record)?.averaged_clean))),
            series(&format!("{robust}, averaged"), &|record| Some(percent(both(record)?.averaged_robust))),
        ]
    } else {
        vec![
            series("clean", &|record| Some(percent(record.accuracy.as_ref()?.clean))),
            series(&robust, &|record| Some(percent(record.accuracy.as_ref()?.robust.count()))),
        ]
    };
    let accuracy = Plot {
        title: "Accuracy on the validation split",
        x: "epoch",
        y: "accuracy",
        percent: true,
        whole: true,
        series: accuracies,
    };
    let overfitting =
        history.epochs.iter().filter_map(|record| record.accuracy.as_ref()?.overfitting.as_deref()).collect();
    let optimization = [loss.draw()?, rate.draw()?].into_iter().flatten().collect();
    Ok(Some(EpochCurves { accuracy: accuracy.draw()?, overfitting, optimization }))
}

/// Draws accuracy under PGD, against its radius and its number of steps.
pub(super) fn sweeps(
    Document { results, accuracies, training, .. }: &Document,
) -> Result<Vec<Chart>, String> {
    let figures = accuracies.figures.iter().filter(|figure| figure.measure == Measure::Sweep);
    let swept: Vec<_> = results.sweep.iter().zip(figures).collect();
    // As `Sweep::points` orders them: first over radii, then over steps.
    let radii = training.evaluation.sweep.as_ref().map_or(0, |sweep| sweep.epsilon.len()).min(swept.len());
    let (over_radii, over_steps) = swept.split_at(radii);
    // Customary radii are fractions of 255; then so is the axis.
    let in_255ths = over_radii.iter().all(|(count, _)| count.epsilon.ends_with("/255"));
    let scale = if in_255ths { 255.0 } else { 1.0 };
    let radius = |text: &str| Some(text.parse::<Epsilon>().ok()?.value() * scale);
    let mut by_radius: Vec<Point> = over_radii
        .iter()
        .filter_map(|(count, figure)| Some(point(radius(&count.epsilon)?, figure)))
        .collect();
    let clean = accuracies.figures.iter().find(|figure| figure.measure == Measure::Clean);
    if let Some(clean) = clean.filter(|_| !by_radius.is_empty()) {
        by_radius.push(point(0.0, clean));
    }
    by_radius.sort_by(|a, b| a.x.total_cmp(&b.x));
    let mut by_steps: Vec<Point> =
        over_steps.iter().map(|(count, figure)| point(f64::from(count.steps), figure)).collect();
    by_steps.sort_by(|a, b| a.x.total_cmp(&b.x));
    let name = |steps: Option<u32>| {
        steps.map_or_else(String::new, |steps| format!("PGD with {steps} steps; clean at 0"))
    };
    let radius = Plot {
        title: "Accuracy against ε",
        x: if in_255ths {
            "ε, in units of 1/255 of the pixel range"
        } else {
            "ε, in units of the pixel range"
        },
        y: "accuracy",
        percent: true,
        whole: false,
        series: vec![Series {
            name: name(over_radii.first().map(|(count, _)| count.steps)),
            points: by_radius,
        }],
    };
    let epsilon = &training.threat_model.epsilon;
    let steps = Plot {
        title: "Accuracy against steps",
        x: "PGD steps",
        y: "accuracy",
        percent: true,
        whole: true,
        series: vec![Series { name: format!("ε = {epsilon}"), points: by_steps }],
    };
    Ok([radius.draw()?, steps.draw()?].into_iter().flatten().collect())
}

/// Draws certified accuracy, against the radius.
pub(super) fn certified(
    Document { results, accuracies, training, .. }: &Document,
) -> Result<Option<Chart>, String> {
    let figures = accuracies.figures.iter().filter(|figure| figure.measure == Measure::Certified);
    let points = results.certified.iter().zip(figures);
    let points =
        points.filter_map(|(count, figure)| Some(point(count.radius.parse().ok()?, figure))).collect();
    let sigma = training.certified_sigma().map_or_else(String::new, |sigma| format!("σ = {sigma}"));
    let plot = Plot {
        title: "Certified accuracy by radius",
        x: "ℓ2 radius, in units of the pixel range",
        y: "certified accuracy",
        percent: true,
        whole: false,
        series: vec![Series { name: sigma, points }],
    };
    plot.draw()
}

fn point(x: f64, figure: &AccuracyEstimate) -> Point {
    let fraction = Count { correct: figure.correct, total: figure.total }.fraction();
    Point { x, y: fraction * 100.0, interval: Some((figure.lower, figure.upper)) }
}
