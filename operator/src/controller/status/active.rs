//! State and conditions of an unfinished job. Pure.

use datjob_api::{
    datjob::DatJob,
    report::{Phase, Report},
};

use super::{
    ActiveJob, ApplyConflict, AttemptAction, Blocker, ReportState, State, StatusBuilder, pods, preparation,
};
use crate::{
    conditions::{self, COMPLETE, FAILED, FINISHED, READY, RECONCILING, STALLED},
    events::Event,
    text::{clause, truncate},
};

/// Maximum size of a failure in a message. The trainer image is untrusted.
const MAX_FAILURE_BYTES: usize = 512;

impl StatusBuilder<'_> {
    /// Sets state and conditions.
    pub(super) fn set_active(&mut self, active: &ActiveJob, blocker: Option<&Blocker>) {
        let state = self.state(active);
        if state == State::Evaluating && self.previous.state != state.as_str() {
            let key = format!("generation {}", self.next.generation);
            self.events.push(Event::normal(
                "Evaluating",
                key,
                "Training finished; the final evaluation on the test set started.",
            ));
        }
        state.as_str().clone_into(&mut self.next.state);
        if let Some(blocker) = blocker {
            self.set_blocked(blocker);
            return;
        }
        let message = self.progress_message(active, state);
        let reason = match (&active.conflict, active.action) {
            (Some(ApplyConflict::Leftover { .. }), _) | (_, AttemptAction::AwaitTermination(_)) => {
                "AwaitingCleanup"
            }
            (_, AttemptAction::BackOff(_) | AttemptAction::ScaleDown) => "StartupDeadlineMissed",
            _ if state == State::Running => "Training",
            _ => state.as_str(),
        };
        // The job stays ready while a world re-forms.
        let formed = self.has_formed() || matches!(state, State::Running | State::Evaluating);
        let ready = formed && active.action == AttemptAction::Keep;
        self.set_unfinished(ready, !ready, reason, &message);
        self.set(STALLED, false, reason, "");
    }

    /// Sets the conditions of an unfinished job, except Stalled.
    pub(super) fn set_unfinished(&mut self, ready: bool, reconciling: bool, reason: &str, message: &str) {
        self.set(READY, ready, reason, message);
        self.set(RECONCILING, reconciling, reason, if reconciling { message } else { "" });
        for kind in [FINISHED, COMPLETE, FAILED] {
            self.set(kind, false, "NotFinished", "");
        }
    }

    /// Stalled if a person must solve the problem; a problem that may pass is only reported.
    fn set_blocked(&mut self, blocker: &Blocker) {
        let before = conditions::find(&self.previous, READY).filter(|ready| ready.reason == blocker.reason);
        let message = blocker.message_replacing(before.map_or("", |ready| ready.message.as_str()));
        if before.is_none() {
            let event = if blocker.may_pass { Event::normal } else { Event::warning };
            self.events.push(event("Blocked", blocker.reason, message.clone()));
        }
        self.set_unfinished(false, blocker.may_pass, blocker.reason, &message);
        self.set(STALLED, !blocker.may_pass, blocker.reason, if blocker.may_pass { "" } else { &message });
    }

    fn state(&self, active: &ActiveJob) -> State {
        if active.action != AttemptAction::Keep {
            return State::Pending;
        }
        match &active.observation.report {
            ReportState::Received(report) => match report.phase {
                Phase::Training => State::Running,
                Phase::Evaluating | Phase::Succeeded => State::Evaluating,
                Phase::Preparing | Phase::Forming | Phase::Failed => self.forming_state(),
            },
            // The previous state, if a world has been seen.
            ReportState::Pending | ReportState::Unreadable { .. } => match State::parse(&self.previous.state)
            {
                State::Pending | State::Complete | State::Failed => self.forming_state(),
                state => state,
            },
            ReportState::NoPod if self.next.generation > 0 => State::Restarting,
            ReportState::NoPod if pods::count_running(&active.observation.pods) > 0 => State::Starting,
            ReportState::NoPod => State::Pending,
        }
    }

    fn forming_state(&self) -> State {
        if self.next.generation > 0 { State::Restarting } else { State::Starting }
    }

    fn progress_message(&self, active: &ActiveJob, state: State) -> String {
        let replicas = self.job.spec.replicas;
        if let Some(conflict) = &active.conflict {
            return conflict.message();
        }
        match active.action {
            // The sentence of an attempt without running pods, so that their creation changes no status.
            AttemptAction::Start(_) => return waiting_for_pods(0, self.job),
            AttemptAction::AwaitTermination(left) => {
                let first = active.observation.pods.first();
                let first =
                    first.map_or(String::new(), |pod| format!(" (first: {})", pods::name_and_node(pod)));
                return format!("Waiting for old pods to terminate: {left} left{first}.");
            }
            AttemptAction::ScaleDown | AttemptAction::BackOff(_) => {
                return self.previous_message_or("The next attempt starts within about a minute.");
            }
            AttemptAction::Keep => {}
        }
        match (&active.observation.report, state) {
            (ReportState::Received(report), State::Running) => {
                format!("World {} is training (world size {}).", report.generation, report.world_size)
            }
            (ReportState::Received(report), State::Evaluating) => {
                format!(
                    "World {} is evaluating on the test set (world size {}).",
                    report.generation, report.world_size
                )
            }
            (ReportState::Received(report), _) if pod_failure(report).is_some() => {
                let joined = format!("{} of {replicas} pods joined", report.pods_joined);
                format!("The world is forming: {joined}; {}.", pod_failure(report).unwrap_or_default())
            }
            (ReportState::Received(report), _)
                if report.phase == Phase::Preparing || report.preparation.is_some() =>
            {
                preparation::message(report.preparation.as_ref(), replicas)
            }
            (ReportState::Received(report), _) => {
                format!("The world is forming: {} of {replicas} pods joined.", report.pods_joined)
            }
            (ReportState::Pending | ReportState::Unreadable { .. }, _)
                if self.previous.state == state.as_str() =>
            {
                self.previous_message_or("No report received yet.")
            }
            (ReportState::Pending | ReportState::Unreadable { .. }, _) => {
                "Pod 0 is running; waiting for its report.".to_owned()
            }
            (ReportState::NoPod, _) => {
                waiting_for_pods(pods::count_running(&active.observation.pods), self.job)
            }
        }
    }

    /// The previous message of the condition Ready, or `otherwise` without one.
    fn previous_message_or(&self, otherwise: &str) -> String {
        let ready = conditions::find(&self.previous, READY);
        ready
            .map(|ready| ready.message.clone())
            .filter(|message| !message.is_empty())
            .unwrap_or(otherwise.to_owned())
    }
}

/// Why a pod cannot join the world, once the job has trained. The message of the trainer names the pod, unless a rank failed.
fn pod_failure(report: &Report) -> Option<String> {
    let failure = report.failure.as_ref().filter(|failure| failure.reason.is_of_pod())?;
    let message = clause(&truncate(&failure.message, MAX_FAILURE_BYTES));
    Some(failure.rank.map_or(message.clone(), |rank| format!("rank {rank} failed: {message}")))
}

fn waiting_for_pods(running: usize, job: &DatJob) -> String {
    format!("{running} of {} pods are running; waiting for pod 0.", job.spec.replicas)
}
