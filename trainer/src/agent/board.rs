//! What an agent knows of the job, for its report and its metrics.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use datjob_api::report::{
    Accuracy, EvaluationProgress, Failure, Phase, Progress, Report, Results, Timing, WaitingForStorage,
};
use datjob_data::storage;

use crate::rendezvous::{Verdict, host::Host};

/// Most classes of which a report has counts.
const MOST_CLASSES: usize = 200;

/// Most warnings in a report, which has at most 64 KiB.
const MAX_WARNINGS: usize = 16;

/// The newest report, and the rendezvous where this agent hosts it.
#[derive(Debug)]
pub struct Board {
    report: Mutex<Report>,
    host: OnceLock<Arc<Host>>,
}

impl Board {
    /// A board on which nothing stands but who the agent is.
    pub fn new(job_uid: &str, pod_uid: &str, attempt: u32) -> Self {
        let report = Report {
            job_uid: job_uid.to_owned(),
            pod_uid: pod_uid.to_owned(),
            attempt,
            generation: 0,
            phase: Phase::Preparing,
            world_size: 0,
            pods_joined: 0,
            preparation: None,
            preparation_idle_seconds: None,
            progress: None,
            timing: None,
            evaluation: None,
            accuracy: None,
            best: None,
            overfitting: None,
            warnings: Vec::new(),
            storage: None,
            results: None,
            failure: None,
        };
        Self { report: Mutex::new(report), host: OnceLock::new() }
    }

    /// The report as it stands now.
    pub fn report(&self) -> Report {
        let mut report = self.change().clone();
        // Only the report of pod 0 is read.
        let of_agent = |trouble| WaitingForStorage { pods: 1, pod: 0, trouble };
        report.storage = storage::oldest_trouble().map(of_agent);
        if let Some(host) = self.host.get() {
            let snapshot = host.snapshot();
            report.evaluation = report.evaluation.filter(|_| snapshot.running == Some(report.generation));
            report.phase = phase_of_world(report.phase, report.generation, snapshot.running);
            report.generation = snapshot.generation;
            report.pods_joined = snapshot.joined;
            report.preparation = snapshot.preparation;
            report.preparation_idle_seconds = snapshot.preparation_idle.map(in_steps_of_ten);
            report.storage = snapshot.storage.or(report.storage);
            report.failure = report.failure.or(snapshot.failure);
        }
        report
    }

    /// The rendezvous that this agent hosts.
    pub fn rendezvous(&self) -> Option<&Arc<Host>> {
        self.host.get()
    }

    pub(super) fn host(&self, host: Arc<Host>) {
        // Set once, by the one task that prepares the agent.
        let _ = self.host.set(host);
    }

    pub(super) fn world_size(&self, world_size: u32) {
        self.change().world_size = world_size;
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.change().phase = phase;
    }

    pub(super) fn world(&self, generation: u32) {
        let mut report = self.change();
        report.generation = generation;
        report.phase = Phase::Training;
        report.evaluation = None;
    }

    pub(super) fn progress(&self, progress: Progress) {
        self.change().progress = Some(progress);
    }

    /// Number of completed epochs, as far as it is known.
    pub(super) fn completed_epochs(&self) -> u32 {
        self.change().progress.as_ref().map_or(0, |progress| progress.epoch)
    }

    pub(super) fn timing(&self, timing: Timing) {
        self.change().timing = Some(timing);
    }

    /// The running evaluation, if one runs.
    pub(super) fn evaluation(&self, evaluation: Option<EvaluationProgress>) {
        self.change().evaluation = evaluation;
    }

    pub(super) fn accuracy(&self, accuracy: Accuracy) {
        let mut report = self.change();
        if accuracy.overfitting.is_some() {
            report.overfitting = Some(accuracy.clone());
        }
        report.accuracy = Some(accuracy);
    }

    pub(super) fn best(&self, accuracy: Accuracy) {
        self.change().best = Some(accuracy);
    }

    /// Reports a problem that does not end the job, once.
    pub(super) fn warning(&self, sentence: String) {
        let warnings = &mut self.change().warnings;
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&sentence) {
            warnings.push(sentence);
        }
    }

    pub(super) fn failed(&self, failure: Failure) {
        let mut report = self.change();
        report.phase = Phase::Failed;
        report.evaluation = None;
        report.failure = Some(failure);
    }

    pub(super) fn succeeded(&self, mut results: Results) {
        // A report has at most 64 KiB; results.json has all.
        results.by_class = results.by_class.filter(|by_class| by_class.total.len() <= MOST_CLASSES);
        let mut report = self.change();
        report.phase = Phase::Succeeded;
        report.evaluation = None;
        report.results = Some(results);
        report.failure = None;
    }

    pub(super) fn verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Succeeded => self.phase(Phase::Succeeded),
            Verdict::Failed(failure) => self.failed(failure.clone()),
        }
    }

    fn change(&self) -> MutexGuard<'_, Report> {
        // Every change leaves a whole report.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whole seconds in steps of 10, so that the report does not change all the time.
fn in_steps_of_ten(idle: Duration) -> u32 {
    u32::try_from(idle.as_secs() / 10 * 10).unwrap_or(u32::MAX)
}

/// The phase, given the world that this agent last started and the one that the rendezvous runs. The agent learns of a new
/// world, or of the end of one, only with its next heartbeat.
fn phase_of_world(phase: Phase, started: u32, running: Option<u32>) -> Phase {
    match (phase, running) {
        (Phase::Training | Phase::Evaluating, None) => Phase::Forming,
        (Phase::Forming | Phase::Training | Phase::Evaluating, Some(running)) if running != started => {
            Phase::Training
        }
        (phase, _) => phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_seconds_come_in_steps_of_ten() {
        assert_eq!([0, 9, 10, 1_809].map(|s| in_steps_of_ten(Duration::from_secs(s))), [0, 0, 10, 1_800]);
        assert_eq!(in_steps_of_ten(Duration::MAX), u32::MAX);
    }

    #[test]
    fn the_phase_is_that_of_the_running_world() {
        // No world yet, the first one, its end, the second one; the agent has started none, then the first.
        assert_eq!(phase_of_world(Phase::Forming, 0, None), Phase::Forming);
        assert_eq!(phase_of_world(Phase::Forming, 0, Some(1)), Phase::Training);
        assert_eq!(phase_of_world(Phase::Evaluating, 1, Some(1)), Phase::Evaluating);
        assert_eq!(phase_of_world(Phase::Evaluating, 1, None), Phase::Forming);
        assert_eq!(phase_of_world(Phase::Training, 1, None), Phase::Forming);
        assert_eq!(phase_of_world(Phase::Evaluating, 1, Some(2)), Phase::Training);
        for phase in [Phase::Preparing, Phase::Succeeded, Phase::Failed] {
            assert_eq!([phase_of_world(phase, 1, Some(2)), phase_of_world(phase, 1, None)], [phase; 2]);
        }
    }
}
