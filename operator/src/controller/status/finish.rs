//! Finishes a job, and abandons an attempt. Pure. The status is written before resources are released.

use datjob_api::{
    report::{Failure, FailureReason, Phase},
    restarts::limit_exceeded,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    ActiveJob, AttemptAction, Blocker, ReportState, State, StatusBuilder, pods, restarts::RestartCause,
};
use crate::{
    clock::elapsed,
    conditions::{COMPLETE, FAILED, FINISHED, READY, RECONCILING, STALLED},
    controller::validate::InvalidSpec,
    events::Event,
    text::clause,
};

impl StatusBuilder<'_> {
    /// Finishes the job if it succeeded, failed or exceeded a limit. Returns whether it did.
    pub(super) fn finish_if_due(&mut self, active: &ActiveJob) -> bool {
        if let ReportState::Received(report) = &active.observation.report {
            if let (Phase::Succeeded, Some(results)) = (report.phase, &report.results) {
                self.record_results(results);
                let target = self.job.spec.training.evaluation.target.as_ref();
                match target.and_then(|target| target.missed(results)) {
                    Some(sentence) => self.miss_target(&sentence),
                    None => self.complete(),
                }
                return true;
            }
            // In other phases the failure is that of a world or of a pod, which retry.
            if let (Phase::Failed, Some(failure)) = (report.phase, &report.failure) {
                self.fail(failure_reason(failure.reason), &failure_message(failure));
                return true;
            }
        }
        // Only at a restart: a lowered limit does not fail a running world.
        if self.next.restarts.recent_failures > self.previous.restarts.recent_failures
            && self.fail_at_restart_limit()
        {
            return true;
        }
        if let Some(limit) = self.job.spec.lifecycle.active_deadline_seconds
            && self.has_exceeded(limit, self.next.start_time.as_ref())
        {
            self.fail(
                "DeadlineExceeded",
                &format!("The job exceeded lifecycle.activeDeadlineSeconds ({limit} s)."),
            );
            return true;
        }
        false
    }

    /// Fails a job with an invalid spec, which is immutable.
    pub(super) fn reject(&mut self, invalid: &InvalidSpec) {
        let message = format!("{invalid}.");
        self.next.failure = Some(Failure::new(FailureReason::Configuration, message.clone()));
        self.fail(
            "InvalidSpec",
            &format!("{message} No pod was created. Delete this job and create a corrected one."),
        );
    }

    /// Fails the job because its accuracy is below the target.
    fn miss_target(&mut self, sentence: &str) {
        let message = format!("{sentence}. The results and weights are kept.");
        self.next.failure = Some(Failure::new(FailureReason::TargetMissed, message.clone()));
        self.fail(failure_reason(FailureReason::TargetMissed), &message);
    }

    fn complete(&mut self) {
        let message = format!(
            "Completed: clean accuracy {} %, robust accuracy {} % on the test set.",
            self.next.clean, self.next.robust
        );
        self.set(READY, true, "Complete", &message);
        self.set(RECONCILING, false, "Complete", "");
        self.set(STALLED, false, "Complete", "");
        self.set(FINISHED, true, "Complete", &message);
        self.set(COMPLETE, true, "Complete", &message);
        self.set(FAILED, false, "Complete", "");
        self.next.failure = None;
        self.set_finished(State::Complete);
        self.events.push(Event::normal("Completed", "", message));
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.set(READY, false, reason, message);
        self.set(RECONCILING, false, reason, "");
        self.set(STALLED, true, reason, message);
        self.set(FINISHED, true, reason, message);
        self.set(COMPLETE, false, reason, "");
        self.set(FAILED, true, reason, message);
        self.set_finished(State::Failed);
        self.events.push(Event::warning("Failed", reason, format!("{reason}: {message}")));
    }

    fn set_finished(&mut self, state: State) {
        state.as_str().clone_into(&mut self.next.state);
        self.next.completion_time = Some(Time(self.now));
        self.next.waiting_since = None;
        self.next.workers = format!("0/{}", self.job.spec.replicas);
        self.end_storage_trouble();
    }

    /// Fails a job that failed too often without progress. Returns whether it did.
    fn fail_at_restart_limit(&mut self) -> bool {
        let last = self.next.failure.as_ref().map_or_else(
            || "a world lost an agent, or did not form although all pods ran".to_owned(),
            |failure| clause(&failure_message(failure)),
        );
        let limit = self.job.spec.lifecycle.max_restarts;
        let Some(message) = limit_exceeded(self.next.restarts.recent_failures, limit, &last) else {
            return false;
        };
        self.fail("RestartLimitExceeded", &message);
        true
    }

    /// Whether pods of this attempt have held resources too long while others do not run, do not join or make no progress in
    /// preparing data. A report that cannot be read is no evidence of that, nor is one of an older trainer that prepares.
    pub(super) fn exceeds_startup_deadline(&self, active: &ActiveJob) -> bool {
        let limit = self.job.spec.lifecycle.startup_deadline_seconds;
        let (does_not_form, idle) = match &active.observation.report {
            ReportState::NoPod => (true, None),
            // A fault of storage ends no attempt: the next one would meet it too.
            ReportState::Received(report) if report.storage.is_some() => (false, None),
            ReportState::Received(report) => match (report.phase, report.preparation_idle_seconds) {
                (Phase::Forming, idle) => (true, idle),
                (Phase::Preparing, Some(idle)) => (true, Some(idle)),
                _ => (false, None),
            },
            ReportState::Pending | ReportState::Unreadable { .. } => (false, None),
        };
        active.action == AttemptAction::Keep
            && does_not_form
            && self.has_exceeded(limit, self.next.waiting_since.as_ref())
            && idle.is_none_or(|idle| idle > limit)
    }

    /// Whether more than `limit` seconds have passed since a time in the status. Both times are of the operator's clock.
    fn has_exceeded(&self, limit: u32, since: Option<&Time>) -> bool {
        since.is_some_and(|since| elapsed(since.0, self.now).as_secs() > u64::from(limit))
    }

    /// Abandons the attempt and makes the next one the desired attempt. The StatefulSet is then scaled to 0 and applied
    /// again later. It counts as a failure only if all pods ran: waiting for capacity does not count.
    pub(super) fn abandon_attempt(&mut self, active: &ActiveJob, blocker: Option<&Blocker>) {
        let limit = self.job.spec.lifecycle.startup_deadline_seconds;
        let abandoned = self.next.attempt;
        let problem = self.startup_problem(active, blocker);
        let all_run = pods::count_running(&active.observation.pods) >= self.job.spec.replicas as usize;
        if all_run {
            self.count_restarts(RestartCause::Failure, 1);
            self.next.failure.get_or_insert_with(|| {
                let message =
                    format!("no world formed within lifecycle.startupDeadlineSeconds ({limit} s): {problem}");
                Failure::new(FailureReason::Communication, message)
            });
            if self.fail_at_restart_limit() {
                return;
            }
        }
        let message = format!(
            "Attempt {abandoned} formed no world within lifecycle.startupDeadlineSeconds ({limit} s): {problem}. The \
             operator scales the pods to 0 and starts attempt {} within about a minute.",
            abandoned + 1
        );
        self.next.attempt = abandoned + 1;
        self.next.generation_at_start = self.next.generation;
        self.next.waiting_since = Some(Time(self.now));
        self.next.workers = format!("0/{}", self.job.spec.replicas);
        self.events.push(Event::warning(
            "StartupDeadlineMissed",
            format!("attempt {abandoned}"),
            message.clone(),
        ));
        State::Pending.as_str().clone_into(&mut self.next.state);
        self.set_unfinished(false, true, "StartupDeadlineMissed", &message);
        self.set(STALLED, false, "StartupDeadlineMissed", "");
    }

    /// Why no world formed: "2 of 4 pods joined; …".
    fn startup_problem(&self, active: &ActiveJob, blocker: Option<&Blocker>) -> String {
        let replicas = self.job.spec.replicas;
        let observation = &active.observation;
        let mut parts = Vec::new();
        match &observation.report {
            ReportState::Received(report) => {
                parts.push(format!("{} of {replicas} pods joined", report.pods_joined));
            }
            ReportState::NoPod | ReportState::Pending | ReportState::Unreadable { .. } => {
                let running = pods::count_running(&observation.pods);
                parts.push(format!("{running} of {replicas} pods are running"));
            }
        }
        if let Some(blocker) = blocker {
            parts.push(clause(&blocker.message()));
        } else if let ReportState::Unreadable { message, .. } = &observation.report {
            parts.push(clause(message));
        } else if let Some(failure) = &self.next.failure {
            parts.push(clause(&failure_message(failure)));
        }
        parts.join("; ")
    }
}

fn failure_reason(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Configuration => "ConfigurationFailure",
        FailureReason::Data => "DataFailure",
        FailureReason::Numerical => "NumericalFailure",
        FailureReason::Communication => "CommunicationFailure",
        FailureReason::Storage => "StorageFailure",
        FailureReason::OutOfMemory => "OutOfMemory",
        FailureReason::Device => "DeviceFailure",
        FailureReason::TargetMissed => "TargetMissed",
        FailureReason::Crash => "Crash",
        FailureReason::Hang => "Hang",
    }
}

fn failure_message(failure: &Failure) -> String {
    match failure.rank {
        Some(rank) => format!("Rank {rank}: {}", failure.message),
        None => failure.message.clone(),
    }
}
