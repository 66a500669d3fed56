//! Progress in the log of pod 0: a line at the end of each epoch and of each evaluation, and every minute in between.
//!
//! The decisions are pure: times are durations since a fixed moment. [`Line::write`] writes to the log.

use std::time::Duration;

use datjob_api::report::{Accuracy, EvaluationPart, EvaluationProgress, Progress, Results, Split};

use crate::worker_protocol::{EvaluationState, Event};

/// Longest time between two lines while rank 0 works.
pub(super) const INTERVAL: Duration = Duration::from_mins(1);

/// Decides which lines are due.
#[derive(Debug, Default)]
pub(super) struct ProgressLog {
    /// The latest progress of the training.
    training: Option<Progress>,
    /// The running evaluation.
    evaluation: Option<Evaluation>,
    /// Time of the last line, or of the first event.
    last_line: Option<Duration>,
}

/// A running evaluation.
#[derive(Clone, Debug, PartialEq)]
struct Evaluation {
    state: EvaluationState,
    /// When the first result began to be computed.
    began: Duration,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// Within an epoch.
    Training(Progress),
    /// At the end of an epoch that took this many seconds.
    Epoch(Progress, f64),
    /// An evaluation on the validation split.
    Accuracy(Accuracy),
    /// Within an evaluation, with the time left.
    Evaluating(EvaluationState, Option<Duration>),
}

impl ProgressLog {
    /// Records an event of rank 0. Returns the line that it causes.
    pub(super) fn record(&mut self, now: Duration, event: &Event) -> Option<Line> {
        let since = *self.last_line.get_or_insert(now);
        let line = match event {
            Event::Progress(progress) => {
                self.evaluation = None;
                self.training = Some(progress.clone());
                None
            }
            Event::Timing(timing) => {
                self.training.clone().map(|progress| Line::Epoch(progress, timing.epoch_seconds))
            }
            Event::Accuracy(accuracy) => {
                self.evaluation = None;
                Some(Line::Accuracy(accuracy.clone()))
            }
            Event::Evaluating(state) => self.evaluate(now, state),
            Event::Best(_)
            | Event::Warning(_)
            | Event::Storage(_)
            | Event::Training(_)
            | Event::Stage(_)
            | Event::Pulse(_)
            | Event::Left
            | Event::Failed(_) => None,
        };
        self.last_line = Some(if line.is_some() { now } else { since });
        line
    }

    /// The line that is due because the last one is a minute old.
    pub(super) fn due(&mut self, now: Duration) -> Option<Line> {
        if now.saturating_sub(self.last_line?) < INTERVAL {
            return None;
        }
        let line = match (&self.evaluation, &self.training) {
            (Some(evaluation), _) => evaluation.line(now),
            (None, Some(progress)) => Line::Training(progress.clone()),
            (None, None) => return None,
        };
        self.last_line = Some(now);
        Some(line)
    }

    /// The progress of the running evaluation for the report, if one runs.
    pub(super) fn evaluation(&self, now: Duration) -> Option<EvaluationProgress> {
        let running = self.evaluation.as_ref()?;
        let EvaluationState { part, ref attack, iteration, iterations, done, robust, total, .. } =
            running.state;
        let remaining = remaining_evaluation(&running.state, now.saturating_sub(running.began));
        Some(EvaluationProgress {
            part,
            attack: attack.clone(),
            iteration,
            iterations,
            images: done,
            robust,
            total,
            remaining_seconds: remaining.map(|remaining| remaining.as_secs()),
        })
    }

    /// Records the progress of an evaluation. The begin of a part of the final evaluation causes a line.
    fn evaluate(&mut self, now: Duration, state: &EvaluationState) -> Option<Line> {
        let is_same =
            |known: &&Evaluation| known.state.part == state.part && known.state.work.done <= state.work.done;
        let began = self.evaluation.as_ref().filter(is_same).map(|known| known.began);
        // Results of an interrupted evaluation take no time.
        let computing_since = began.filter(|_| state.work.known.is_some()).unwrap_or(now);
        let evaluation = Evaluation { state: state.clone(), began: computing_since };
        let line =
            (began.is_none() && state.part != EvaluationPart::Validation).then(|| evaluation.line(now));
        self.evaluation = Some(evaluation);
        line
    }
}

impl Evaluation {
    fn line(&self, now: Duration) -> Line {
        let Self { state, began } = self;
        Line::Evaluating(state.clone(), remaining_evaluation(state, now.saturating_sub(*began)))
    }
}

impl Line {
    /// Writes the line to the log.
    pub(super) fn write(&self) {
        match self {
            Self::Training(progress) => {
                let Progress { epoch, epochs, step, percent, loss, images_per_second, .. } = *progress;
                let eta = eta(Some(Duration::from_secs(progress.remaining_seconds)));
                let epoch = (epoch + 1).min(epochs);
                tracing::info!(epoch, epochs, step, percent, loss, images_per_second, eta, "Training.");
            }
            Self::Epoch(progress, seconds) => {
                let Progress { epoch, epochs, step, loss, images_per_second, .. } = *progress;
                let eta = eta(Some(Duration::from_secs(progress.remaining_seconds)));
                tracing::info!(
                    epoch,
                    epochs,
                    step,
                    loss,
                    images_per_second,
                    seconds,
                    eta,
                    "Completed an epoch."
                );
            }
            Self::Accuracy(accuracy) => {
                let (epoch, clean) = (accuracy.epoch, accuracy.clean.percent());
                let (attack, robust) = (&accuracy.robust.attack, accuracy.robust.count().percent());
                let split = split_name(accuracy.split);
                tracing::info!(epoch, split, clean, robust, attack, "Measured the accuracy.");
            }
            Self::Evaluating(state, remaining) => {
                let EvaluationState { part, attack, iteration, iterations, done, total, .. } = state;
                let (on, robust, eta) = (part.name(), state.robust_percent(), eta(*remaining));
                tracing::info!(on, attack, iteration, iterations, done, total, robust, eta, "Evaluating.");
            }
        }
    }
}

/// Logs the results on the test set. `robust` is the worst case over all attacks.
pub(super) fn log_results(results: &Results) {
    let (epoch, clean, robust) = (results.best_epoch, results.clean.percent(), results.worst_case.percent());
    let attacks: Vec<String> = results
        .attacks
        .iter()
        .map(|attack| format!("{} {}", attack.attack, attack.count().percent()))
        .collect();
    let (split, attacks) = (split_name(Split::Test), attacks.join(", "));
    tracing::info!(epoch, split, clean, robust, attacks, "Measured the accuracy.");
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Validation => "validation",
        Split::Test => "test",
    }
}

/// The time left of an evaluation, `elapsed` after it began to compute; `None` before anything is done.
pub(crate) fn remaining_evaluation(state: &EvaluationState, elapsed: Duration) -> Option<Duration> {
    let known = state.work.known?;
    remaining(state.work.done.saturating_sub(known), state.work.total.saturating_sub(known), elapsed)
}

/// The time left, if what is done took `elapsed`; `None` before anything is done.
pub(super) fn remaining(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    if done == 0 {
        return None;
    }
    let seconds = elapsed.as_secs_f64() / done as f64 * total.saturating_sub(done) as f64;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A duration for people: "45s", "12m05s", "3h07m" or "2d04h"; "unknown" without one.
pub(crate) fn eta(remaining: Option<Duration>) -> String {
    let Some(seconds) = remaining.map(|remaining| remaining.as_secs()) else { return "unknown".to_owned() };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests;
