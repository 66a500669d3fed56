//! What a report changes: generation, restarts, progress, accuracies.

use datjob_api::{
    datjob::ResultsStatus,
    report::{Accuracy, AttackResult, CertifiedCount, Failure, Report, Results, StageCount, SweepCount},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Draft, ReportRead, state::is_formed};
use crate::{
    conditions::{self, OVERFITTING},
    events::Event,
    text::{clause, shorten},
};

/// Longest message, log line and number of log lines that are kept of a failure: the trainer's image is the tenant's.
const LONGEST_MESSAGE: usize = 4096;
const LONGEST_LINE: usize = 512;
const MOST_LINES: usize = 50;
/// Longest name, path or version, and most attacks.
const LONGEST_NAME: usize = 256;
const MOST_ATTACKS: usize = 16;
/// Most points of a sweep.
const MOST_POINTS: usize = 32;

impl Draft<'_> {
    pub(super) fn note_report(&mut self, read: &ReportRead) {
        match read {
            ReportRead::Read(report) => self.take(report),
            ReportRead::NoPod => self.wait(),
            // The pod runs, and most likely goes on with what it did.
            ReportRead::Unread { .. } => {}
        }
    }

    /// The pods wait for a world, since now where they did not before.
    fn wait(&mut self) {
        if self.next.attempt > 0 && self.next.waiting_since.is_none() {
            self.next.waiting_since = Some(Time(self.now));
        }
    }

    fn take(&mut self, report: &Report) {
        self.take_generation(report);
        if is_formed(report.phase) {
            self.next.waiting_since = None;
        } else {
            self.wait();
        }
        if let Some(progress) = &report.progress {
            self.next.epoch = format!("{}/{}", progress.epoch, progress.epochs);
            self.next.progress = Some(progress.clone());
        }
        if report.timing.is_some() {
            self.next.timing.clone_from(&report.timing);
        }
        if let Some(accuracy) = &report.accuracy {
            self.take_accuracy(accuracy);
        }
        if let Some(failure) = &report.failure {
            self.next.failure = Some(bounded(failure));
        }
    }

    /// Counts worlds. The first of an attempt is no restart; each further one is.
    fn take_generation(&mut self, report: &Report) {
        let start = self.next.generation_at_start;
        let restarts = |generation: u32| generation.saturating_sub(start).saturating_sub(1);
        let before = self.next.generation;
        if report.generation <= before {
            return;
        }
        self.next.generation = report.generation;
        let more = restarts(report.generation) - restarts(before);
        self.next.restarts.total = self.next.restarts.total.saturating_add(more);
        let world = format!("World {} formed with {} ranks", report.generation, report.world_size);
        let token = format!("generation {}", report.generation);
        self.events.push(if more == 0 {
            Event::normal("WorldFormed", token, format!("{world}."))
        } else {
            Event::warning("Restarted", token, format!("{world}; {}.", why(report.failure.as_ref())))
        });
    }

    fn take_accuracy(&mut self, accuracy: &Accuracy) {
        let accuracy = bounded_accuracy(accuracy);
        self.next.clean = accuracy.clean.percent();
        self.next.robust = accuracy.robust.count().percent();
        if self.next.best.as_ref().is_none_or(|best| is_better(&accuracy, best)) {
            let note = format!(
                "Epoch {}: best robust accuracy so far: {} % under {} (clean {} %) on the validation split.",
                accuracy.epoch, self.next.robust, accuracy.robust.attack, self.next.clean
            );
            self.events.push(Event::normal("Evaluated", format!("epoch {}", accuracy.epoch), note));
            self.next.best = Some(accuracy.clone());
        }
        self.note_overfitting(&accuracy);
        self.next.accuracy = Some(accuracy);
    }

    fn note_overfitting(&mut self, accuracy: &Accuracy) {
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
                let sentence = format!("Epoch {}: no catastrophic overfitting.", accuracy.epoch);
                self.set(OVERFITTING, false, "Recovered", &sentence);
            }
            None => {}
        }
    }

    pub(super) fn take_results(&mut self, results: &Results) {
        self.next.clean = results.clean.percent();
        self.next.robust = results.worst_case.percent();
        self.next.results = Some(ResultsStatus {
            best_epoch: results.best_epoch,
            averaged: results.averaged,
            clean: results.clean.into(),
            attacks: results.attacks.iter().take(MOST_ATTACKS).map(bounded_attack).map(Into::into).collect(),
            worst_case: results.worst_case.into(),
            sweep: results.sweep.iter().take(MOST_POINTS).map(bounded_point).collect(),
            certified: results.certified.iter().take(MOST_ATTACKS).map(bounded_certificate).collect(),
            weights: shorten(&results.weights, LONGEST_MESSAGE),
            sha256: shorten(&results.sha256, LONGEST_NAME),
            seed: results.seed,
            training_hash: shorten(&results.training_hash, LONGEST_NAME),
            trainer_version: shorten(&results.trainer_version, LONGEST_NAME),
            libtorch_version: shorten(&results.libtorch_version, LONGEST_NAME),
            world_size: results.world_size,
            threads: results.threads,
        });
    }
}

/// Why the world before this one ended.
fn why(failure: Option<&Failure>) -> String {
    match failure {
        Some(Failure { reason, rank: Some(rank), message, .. }) => {
            format!("the previous world failed with {reason:?} on rank {rank}: {}", clause(message))
        }
        Some(Failure { reason, message, .. }) => {
            format!("the previous world failed with {reason:?}: {}", clause(message))
        }
        None => "the previous world lost a pod".to_owned(),
    }
}

/// Whether an evaluation found a higher robust accuracy than another; counts, so that nothing is rounded.
fn is_better(one: &Accuracy, other: &Accuracy) -> bool {
    let product = |correct: u64, total: u64| u128::from(correct) * u128::from(total.max(1));
    product(one.robust.correct, other.robust.total) > product(other.robust.correct, one.robust.total)
}

fn bounded_accuracy(accuracy: &Accuracy) -> Accuracy {
    let mut accuracy = accuracy.clone();
    accuracy.robust.attack = shorten(&accuracy.robust.attack, LONGEST_NAME);
    accuracy.overfitting = accuracy.overfitting.as_deref().map(|one| shorten(one, LONGEST_LINE));
    accuracy
}

fn bounded_point(count: &SweepCount) -> SweepCount {
    SweepCount { epsilon: shorten(&count.epsilon, LONGEST_NAME), ..*count }
}

fn bounded_certificate(count: &CertifiedCount) -> CertifiedCount {
    CertifiedCount { radius: shorten(&count.radius, LONGEST_NAME), ..*count }
}

fn bounded_attack(attack: &AttackResult) -> AttackResult {
    let stage =
        |stage: &StageCount| StageCount { name: shorten(&stage.name, LONGEST_NAME), correct: stage.correct };
    AttackResult {
        attack: shorten(&attack.attack, LONGEST_NAME),
        stages: attack.stages.iter().take(MOST_ATTACKS).map(stage).collect(),
        warnings: attack.warnings.iter().take(MOST_ATTACKS).map(|one| shorten(one, LONGEST_LINE)).collect(),
        ..*attack
    }
}

fn bounded(failure: &Failure) -> Failure {
    let lines = failure.log_tail.iter().skip(failure.log_tail.len().saturating_sub(MOST_LINES));
    Failure {
        reason: failure.reason,
        rank: failure.rank,
        message: shorten(&failure.message, LONGEST_MESSAGE),
        log_tail: lines.map(|line| shorten(line, LONGEST_LINE)).collect(),
    }
}
