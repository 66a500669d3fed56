//! Updates the status from a report: generation, restarts, progress, accuracies. Pure.

use std::sync::Arc;

use datjob_api::{
    datjob::ResultsStatus,
    report::{
        Accuracy, AttackCount, AttackResult, CertifiedCount, EvaluationProgress, Failure, Report, Results,
        Split, StageCount, SweepCount,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Observation, ReportState, StatusBuilder, restarts::RestartCause, state::is_formed};
use crate::{
    conditions::{self, OVERFITTING},
    controller::watch::Pod,
    events::Event,
    text::{clause, truncate},
};

/// Limits of a failure's message, log lines and number of log lines. The trainer image is untrusted.
const MAX_MESSAGE_BYTES: usize = 4096;
const MAX_LINE_BYTES: usize = 512;
const MAX_LINES: usize = 50;
/// Limits of names and versions, and of the number of attacks.
const MAX_NAME_BYTES: usize = 256;
const MAX_ATTACKS: usize = 16;
/// Maximum number of device models.
const MAX_DEVICES: usize = 8;
/// Maximum number of warnings.
const MAX_WARNINGS: usize = 16;
/// Maximum number of points of a sweep.
const MAX_SWEEP_POINTS: usize = 32;

impl StatusBuilder<'_> {
    pub(super) fn record_report(&mut self, observation: &Observation) {
        match &observation.report {
            ReportState::Received(report) => self.apply_report(report, &observation.pods),
            ReportState::NoPod => {
                self.start_waiting();
                self.next.evaluation = None;
                self.end_storage_trouble();
            }
            // The pod runs and probably continues.
            ReportState::Pending | ReportState::Unreadable { .. } => {}
        }
    }

    /// Starts to count the time that the pods wait for a world, unless it is counted already.
    fn start_waiting(&mut self) {
        if self.next.attempt > 0 && self.next.waiting_since.is_none() {
            self.next.waiting_since = Some(Time(self.now));
        }
    }

    fn apply_report(&mut self, report: &Report, pods: &[Arc<Pod>]) {
        if report.generation > self.next.generation && self.next.world.is_some() {
            // Epochs that the earlier world has completed count as its progress, before its failure is counted.
            self.record_progress(report);
            self.forget_failures_after_epoch();
        }
        self.record_generation(report, pods);
        if is_formed(report.phase) {
            self.next.waiting_since = None;
        } else {
            self.start_waiting();
        }
        self.record_progress(report);
        if is_formed(report.phase) {
            self.forget_failures_after_progress();
        }
        if report.timing.is_some() {
            self.next.timing.clone_from(&report.timing);
        }
        self.next.evaluation = report.evaluation.as_ref().map(truncate_evaluation);
        self.record_warnings(&report.warnings);
        self.record_storage(report.storage.as_ref());
        if let Some(accuracy) = &report.accuracy {
            self.record_accuracy(accuracy, report);
        } else if let Some(best) = &report.best {
            // The agent is new, and no epoch was evaluated since.
            self.record_best(best, Some(best));
        }
        if let Some(failure) = &report.failure {
            self.next.failure = Some(truncate_failure(failure));
        }
    }

    fn record_progress(&mut self, report: &Report) {
        if let Some(progress) = &report.progress {
            self.next.epoch = format!("{}/{}", progress.epoch, progress.epochs);
            self.next.progress = Some(progress.clone());
        }
    }

    /// Counts worlds. Each world after the first one of an attempt is a restart.
    fn record_generation(&mut self, report: &Report, pods: &[Arc<Pod>]) {
        let start = self.next.generation_at_start;
        let restarts = |generation: u32| generation.saturating_sub(start).saturating_sub(1);
        let before = self.next.generation;
        if report.generation <= before {
            return;
        }
        self.next.generation = report.generation;
        let more = restarts(report.generation) - restarts(before);
        let cause = self.record_world(pods, more, report.failure.as_ref());
        if more > 0 {
            // The report says why that world ended; an earlier failure is not the cause.
            self.next.failure = None;
        }
        let world = format!("World {} formed (world size {})", report.generation, report.world_size);
        let key = format!("generation {}", report.generation);
        self.events.push(if more == 0 {
            Event::normal("WorldFormed", key, format!("{world}."))
        } else {
            Event::warning(
                "Restarted",
                key,
                format!("{world}; {}.", describe(cause, report.failure.as_ref())),
            )
        });
    }

    fn record_accuracy(&mut self, accuracy: &Accuracy, report: &Report) {
        let accuracy = truncate_accuracy(accuracy);
        self.next.clean = accuracy.clean.percent();
        self.next.robust = accuracy.robust.count().percent();
        self.next.split = Some(accuracy.split);
        self.record_best(&accuracy, report.best.as_ref());
        // An epoch may be shorter than the time between two reports.
        let known = self.next.accuracy.as_ref().map_or(0, |known| known.epoch);
        if let Some(missed) = &report.overfitting
            && known < missed.epoch
            && missed.epoch < accuracy.epoch
        {
            self.record_overfitting(&truncate_accuracy(missed));
        }
        self.record_overfitting(&accuracy);
        self.next.accuracy = Some(accuracy);
    }

    /// Records the best evaluation so far: the one that the trainer reports, since reports do not contain every evaluation.
    fn record_best(&mut self, latest: &Accuracy, reported: Option<&Accuracy>) {
        let known = self.next.best.as_ref();
        let best = match reported {
            Some(best) => truncate_accuracy(best),
            None if known.is_none_or(|known| is_better(latest, known)) => latest.clone(),
            None => return,
        };
        if known == Some(&best) {
            return;
        }
        let note = format!(
            "Epoch {}: best robust accuracy so far: {} % under {} (clean {} %) on the validation split.",
            best.epoch,
            best.robust.count().percent(),
            best.robust.attack,
            best.clean.percent()
        );
        self.events.push(Event::routine("Evaluated", format!("epoch {}", best.epoch), note));
        self.next.best = Some(best);
    }

    fn record_overfitting(&mut self, accuracy: &Accuracy) {
        match &accuracy.overfitting {
            Some(sentence) => {
                let sentence = format!("{}.", clause(sentence));
                self.set(OVERFITTING, true, OVERFITTING, &sentence);
                if self.next.accuracy.as_ref() == Some(accuracy) {
                    return;
                }
                self.events.push(Event::warning(OVERFITTING, format!("epoch {}", accuracy.epoch), sentence));
            }
            None if conditions::is_true(&self.next, OVERFITTING) => {
                let sentence =
                    format!("Epoch {}: catastrophic overfitting is no longer detected.", accuracy.epoch);
                self.set(OVERFITTING, false, "Recovered", &sentence);
            }
            None => {}
        }
    }

    /// Records the warnings that are new, with an event each.
    fn record_warnings(&mut self, warnings: &[String]) {
        for warning in warnings {
            let sentence = format!("{}.", clause(&truncate(warning, MAX_LINE_BYTES)));
            let known = &mut self.next.warnings;
            if known.len() < MAX_WARNINGS && !known.contains(&sentence) {
                self.events.push(Event::warning(
                    "TrainingWarning",
                    known.len().to_string(),
                    sentence.clone(),
                ));
                known.push(sentence);
            }
        }
    }

    pub(super) fn record_results(&mut self, results: &Results) {
        // The agent that reports the results may have replaced the one that trained.
        let epochs = self.job.spec.training.schedule.epochs;
        self.next.epoch = format!("{epochs}/{epochs}");
        if let Some(progress) = &mut self.next.progress {
            progress.epoch = epochs;
            progress.percent = 100;
            progress.remaining_seconds = 0;
        }
        self.next.clean = results.clean.percent();
        self.next.robust = results.worst_case.percent();
        self.next.split = Some(Split::Test);
        self.next.evaluation = None;
        self.next.results = Some(ResultsStatus {
            best_epoch: results.best_epoch,
            averaged: results.averaged,
            clean: results.clean.into(),
            attacks: results.attacks.iter().take(MAX_ATTACKS).map(truncate_attack).map(Into::into).collect(),
            worst_case: results.worst_case.into(),
            sweep: results.sweep.iter().take(MAX_SWEEP_POINTS).map(truncate_sweep_point).collect(),
            certified: results.certified.iter().take(MAX_ATTACKS).map(truncate_certificate).collect(),
            weights: truncate(&results.weights, MAX_MESSAGE_BYTES),
            sha256: truncate(&results.sha256, MAX_NAME_BYTES),
            seed: results.seed,
            training_hash: truncate(&results.training_hash, MAX_NAME_BYTES),
            trainer_version: truncate(&results.trainer_version, MAX_NAME_BYTES),
            libtorch_version: truncate(&results.libtorch_version, MAX_NAME_BYTES),
            world_size: results.world_size,
            threads: results.threads,
            devices: results
                .devices
                .iter()
                .take(MAX_DEVICES)
                .map(|name| truncate(name, MAX_NAME_BYTES))
                .collect(),
        });
    }
}

/// Why the previous world ended.
fn describe(cause: RestartCause, failure: Option<&Failure>) -> String {
    let failure = failure.map(|Failure { reason, rank, message, .. }| {
        let rank = rank.map_or(String::new(), |rank| format!(" on rank {rank}"));
        format!("failed with {reason:?}{rank}: {}", clause(message))
    });
    match (cause, failure) {
        (RestartCause::Disruption, None) => "a pod of the previous world was replaced".to_owned(),
        (RestartCause::Disruption, Some(failure)) => {
            format!("a pod of the previous world was replaced; the world {failure}")
        }
        (RestartCause::Failure | RestartCause::Fixable, None) => {
            "the agent of a pod of the previous world restarted".to_owned()
        }
        (RestartCause::Failure | RestartCause::Fixable, Some(failure)) => {
            format!("the previous world {failure}")
        }
    }
}

/// Whether an evaluation has a higher robust accuracy than another. Compares exact counts.
fn is_better(one: &Accuracy, other: &Accuracy) -> bool {
    let product = |correct: u64, total: u64| u128::from(correct) * u128::from(total.max(1));
    product(one.robust.correct, other.robust.total) > product(other.robust.correct, one.robust.total)
}

fn truncate_accuracy(accuracy: &Accuracy) -> Accuracy {
    let attack = truncate(&accuracy.robust.attack, MAX_NAME_BYTES);
    Accuracy {
        robust: AttackCount { attack, ..accuracy.robust },
        overfitting: accuracy.overfitting.as_deref().map(|one| truncate(one, MAX_LINE_BYTES)),
        ..*accuracy
    }
}

fn truncate_evaluation(progress: &EvaluationProgress) -> EvaluationProgress {
    EvaluationProgress { attack: truncate(&progress.attack, MAX_NAME_BYTES), ..*progress }
}

fn truncate_sweep_point(count: &SweepCount) -> SweepCount {
    SweepCount { epsilon: truncate(&count.epsilon, MAX_NAME_BYTES), ..*count }
}

fn truncate_certificate(count: &CertifiedCount) -> CertifiedCount {
    CertifiedCount { radius: truncate(&count.radius, MAX_NAME_BYTES), ..*count }
}

fn truncate_attack(attack: &AttackResult) -> AttackResult {
    let stage = |stage: &StageCount| StageCount {
        name: truncate(&stage.name, MAX_NAME_BYTES),
        correct: stage.correct,
    };
    AttackResult {
        attack: truncate(&attack.attack, MAX_NAME_BYTES),
        stages: attack.stages.iter().take(MAX_ATTACKS).map(stage).collect(),
        warnings: attack.warnings.iter().take(MAX_ATTACKS).map(|one| truncate(one, MAX_LINE_BYTES)).collect(),
        ..*attack
    }
}

fn truncate_failure(failure: &Failure) -> Failure {
    let lines = failure.log_tail.iter().skip(failure.log_tail.len().saturating_sub(MAX_LINES));
    Failure {
        reason: failure.reason,
        rank: failure.rank,
        message: truncate(&failure.message, MAX_MESSAGE_BYTES),
        log_tail: lines.map(|line| truncate(line, MAX_LINE_BYTES)).collect(),
        log_file: failure.log_file.as_deref().map(|path| truncate(path, MAX_LINE_BYTES)),
    }
}
