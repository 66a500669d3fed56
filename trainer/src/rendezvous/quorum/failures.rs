//! Failures: why a world ended, which pod cannot join, and which failure ends the job. Pure.
//!
//! A failure of configuration or data ends a job that has never trained. Once it has trained, these failures are those of single
//! pods: they wait and retry, and the job goes on when a person has fixed the cause.

use std::time::Duration;

use datjob_api::report::{Failure, FailureReason};

use super::{Member, Quorum, RECORD_AGAIN_AFTER};
use crate::{
    failure::may_be_consequence,
    rendezvous::{
        lease::Instant,
        message::{State, Verdict},
    },
};

/// How long a pod waits after a failure that ends neither the job nor the pod.
pub const POD_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The failure that ends the job once it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FinalFailure {
    pub(super) failure: Failure,
    pub(super) is_recording: bool,
    /// When it is recorded, if it is not being recorded.
    pub(super) not_before: Instant,
}

impl Quorum {
    /// Lets pods retry after failures of configuration and data, once the job has trained. `has_trained` is whether it has a
    /// checkpoint; from then on, heartbeats say it.
    pub fn retry_pods(&mut self, has_trained: bool) {
        self.retries_pods = true;
        self.has_trained = has_trained;
    }

    /// Whether a failure is that of a pod and not of the job.
    pub(super) fn is_of_pod(&self, failure: &Failure) -> bool {
        self.retries_pods && self.has_trained && failure.reason.is_of_pod()
    }

    /// Keeps, of the failures of one generation, the first that is not the consequence of another.
    pub(super) fn record_failure(&mut self, now: Instant, generation: u32, failure: &Failure) {
        let is_of_pod = self.is_of_pod(failure);
        let ends_job = failure.reason.is_final() && !is_of_pod;
        if ends_job && self.verdict.is_none() && self.final_failure.is_none() {
            let failure = failure.clone();
            self.final_failure =
                Some(FinalFailure { failure, is_recording: false, not_before: Duration::ZERO });
        }
        let better = self.last_failure.as_ref().is_none_or(|(known, old)| {
            generation > *known || (generation == *known && may_be_consequence(old))
        });
        if better {
            if is_of_pod {
                self.not_before = self.not_before.max(now + POD_RETRY_AFTER);
            }
            let mut failure = failure.clone();
            if failure.reason == FailureReason::Hang
                && let Some(waits) = self.waits_of(generation)
            {
                failure.message = format!("{}; {waits}", failure.message);
            }
            self.last_failure = Some((generation, failure));
        }
    }

    /// The job has succeeded: its results are durable. They win over a failure.
    pub fn succeed(&mut self) {
        self.final_failure = None;
        self.verdict = Some(Verdict::Succeeded);
    }

    /// The job has failed: this failure is durable. It may be another one than the proposed failure, and an earlier one.
    pub fn confirm_failure(&mut self, failure: Failure) {
        self.final_failure = None;
        self.verdict.get_or_insert(Verdict::Failed(failure));
    }

    /// Takes back the proposed failure, because it was not recorded. It is proposed again a second later.
    pub fn postpone_failure(&mut self, now: Instant) {
        if let Some(proposed) = &mut self.final_failure {
            proposed.is_recording = false;
            proposed.not_before = now + RECORD_AGAIN_AFTER;
        }
    }

    /// How the job ended, if it has.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Why a pod cannot join, or else why the last world ended or could not begin.
    pub fn current_failure(&self, now: Instant) -> Option<Failure> {
        self.pod_failure(now).or_else(|| self.last_failure().cloned())
    }

    /// The failure of the first present pod that cannot join.
    fn pod_failure(&self, now: Instant) -> Option<Failure> {
        let mut present = self.members.iter().filter(|(_, member)| self.is_present(member, now));
        let (pod, failure) = present.find_map(|(pod, member)| Some((pod, member.failure.as_ref()?)))?;
        let message = format!(
            "pod {pod} cannot join: {}; it retries every {} s",
            failure.message.trim_end_matches('.'),
            POD_RETRY_AFTER.as_secs()
        );
        Some(Failure { message, ..failure.clone() })
    }

    /// Why the last world ended, or could not begin.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref().map(|(_, failure)| failure)
    }

    /// Takes back the proposed world, because its generation cannot be recorded until a person acts.
    pub fn abandon(&mut self, now: Instant, failure: &Failure) {
        self.proposed = None;
        self.not_before = self.not_before.max(now + POD_RETRY_AFTER);
        self.record_failure(now, self.generation, failure);
    }

    /// Attributes the end of a world to the storage if ranks lost a peer while a pod waited for its storage: the collective timed
    /// out first.
    pub(super) fn attribute_to_storage(&mut self, generation: u32, now: Instant) {
        let waits =
            |member: &&Member| self.is_present(member, now) && member.state == State::Running(generation);
        let trouble = self.members.values().filter(waits).find_map(|member| member.storage.as_ref());
        if let Some(trouble) = trouble
            && self.last_failure.as_ref().is_some_and(|(_, failure)| may_be_consequence(failure))
        {
            let failure = Failure::new(FailureReason::Storage, trouble.message.clone());
            self.last_failure = Some((generation, failure));
        }
    }
}
