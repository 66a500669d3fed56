//! State and conditions of a job that is not over.

use datjob_api::report::Phase;
use k8s_openapi::api::core::v1::Pod;

use super::{Active, Blocker, Draft, Obstacle, RETRY_REFUSED, ReportRead, State, Step, observe};
use crate::{
    conditions::{self, COMPLETE, FAILED, FINISHED, READY, RECONCILING, STALLED},
    events::Event,
};

impl Draft<'_> {
    pub(super) fn describe(&mut self, active: &Active, blocker: Option<&Blocker>) {
        let state = self.state(active);
        if state == State::Evaluating && self.before.state != state.word() {
            let token = format!("generation {}", self.next.generation);
            self.events.push(Event::normal(
                "Evaluating",
                token,
                "Training finished; the final evaluation on the test set started.",
            ));
        }
        state.word().clone_into(&mut self.next.state);
        if let Some(blocker) = blocker {
            self.block(active, blocker);
            return;
        }
        let message = self.message(active, state);
        let reason = match (&active.obstacle, active.step) {
            (Some(Obstacle::Leftover { .. }), _) | (_, Step::AwaitPods(_)) => "AwaitingCleanup",
            (_, Step::AwaitTurn(_) | Step::Release) => "StartupDeadlineMissed",
            _ if state == State::Running => "Training",
            _ => state.word(),
        };
        // While a world that was there re-forms, the job stays ready: it is what a job does.
        let formed = self.has_formed() || matches!(state, State::Running | State::Evaluating);
        let ready = formed && active.step == Step::Keep;
        self.open(ready, !ready, reason, &message);
        self.set(STALLED, false, reason, "");
    }

    /// The conditions of a job that goes on.
    pub(super) fn open(&mut self, ready: bool, reconciling: bool, reason: &str, message: &str) {
        self.set(READY, ready, reason, message);
        self.set(RECONCILING, reconciling, reason, if reconciling { message } else { "" });
        for kind in [FINISHED, COMPLETE, FAILED] {
            self.set(kind, false, "NotFinished", "");
        }
    }

    fn block(&mut self, active: &Active, blocker: &Blocker) {
        let before = conditions::find(&self.before, STALLED).filter(|stalled| stalled.status == "True");
        let message = blocker.sentence_after(before.map_or("", |stalled| stalled.message.as_str()));
        if before.is_none_or(|stalled| stalled.reason != blocker.reason) {
            self.events.push(Event::warning("Blocked", blocker.reason, message.clone()));
        }
        self.open(false, false, blocker.reason, &message);
        self.set(STALLED, true, blocker.reason, &message);
        if matches!(active.obstacle, Some(Obstacle::Refused { .. })) {
            self.requeue = Some(RETRY_REFUSED);
        }
    }

    fn state(&self, active: &Active) -> State {
        if active.step != Step::Keep {
            return State::Pending;
        }
        match &active.observation.report {
            ReportRead::Read(report) => match report.phase {
                Phase::Training => State::Running,
                Phase::Evaluating | Phase::Succeeded => State::Evaluating,
                Phase::Preparing | Phase::Forming | Phase::Failed => self.forming(),
            },
            // As it was; a world that nobody has seen is still to come.
            ReportRead::Unread { .. } => match State::of(&self.before.state) {
                State::Pending | State::Complete | State::Failed => self.forming(),
                state => state,
            },
            ReportRead::NoPod if self.next.generation > 0 => State::Restarting,
            ReportRead::NoPod if active.observation.pods.iter().any(runs) => State::Starting,
            ReportRead::NoPod => State::Pending,
        }
    }

    fn forming(&self) -> State {
        if self.next.generation > 0 { State::Restarting } else { State::Starting }
    }

    fn message(&self, active: &Active, state: State) -> String {
        let replicas = self.job.spec.replicas;
        if let Some(obstacle) = &active.obstacle {
            return obstacle.sentence();
        }
        match active.step {
            Step::Start(attempt) => return format!("Creating the pods of attempt {attempt}."),
            Step::AwaitPods(left) => {
                return format!("Waiting for {left} old pods to terminate.");
            }
            Step::Release | Step::AwaitTurn(_) => {
                return self.kept_message("The next attempt starts in about a minute.");
            }
            Step::Keep => {}
        }
        match (&active.observation.report, state) {
            (ReportRead::Read(report), State::Running) => {
                format!("World {} trains with {} ranks.", report.generation, report.world_size)
            }
            (ReportRead::Read(report), State::Evaluating) => {
                format!(
                    "World {} evaluates on the test set with {} ranks.",
                    report.generation, report.world_size
                )
            }
            (ReportRead::Read(report), _) if report.phase == Phase::Preparing => {
                "The pods are preparing the data.".to_owned()
            }
            (ReportRead::Read(report), _) => {
                format!("The world is forming: {} of {replicas} pods joined.", report.pods_joined)
            }
            (ReportRead::Unread { .. }, _) if self.before.state == state.word() => {
                self.kept_message("No report received yet.")
            }
            (ReportRead::Unread { .. }, _) => "Pod 0 is running; waiting for its report.".to_owned(),
            (ReportRead::NoPod, _) => {
                let running = active.observation.pods.iter().filter(|pod| runs(pod)).count();
                format!("{running} of {replicas} pods are running; waiting for pod 0.")
            }
        }
    }

    /// What was said before, where that is still all that is known.
    fn kept_message(&self, otherwise: &str) -> String {
        let ready = conditions::find(&self.before, READY);
        ready
            .map(|ready| ready.message.clone())
            .filter(|message| !message.is_empty())
            .unwrap_or(otherwise.to_owned())
    }
}

fn runs(pod: &Pod) -> bool {
    observe::running_since(pod).is_some()
}
