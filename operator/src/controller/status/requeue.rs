//! When a job is reconciled again although nothing changed. Pure.

use std::time::Duration;

use datjob_api::datjob::DatJob;
use kube::ResourceExt as _;

use super::{ActiveJob, ApplyConflict, AttemptAction, Blocker, StatusBuilder};
use crate::{clock::elapsed, jitter};

/// Delay before a rejected request is retried.
const REJECTION_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Shortest delay while a job waits.
const MIN_DELAY: Duration = Duration::from_secs(5);
/// Longest delay while a job waits.
const MAX_WAITING_DELAY: Duration = Duration::from_mins(5);
/// Delay of a job whose world has formed. Watches and reports trigger its reconciliations.
const RESYNC_DELAY: Duration = Duration::from_mins(10);
/// Delay of such a job while pods are not ready: why they do not start can be seen only by time.
const INCOMPLETE_DELAY: Duration = Duration::from_secs(30);

impl StatusBuilder<'_> {
    /// The delay until the next deadline, and at most a sixth of the time that the job has waited: what is seen only by time,
    /// for example a pod that does not start, is seen soon.
    pub(super) fn next_check(&self, active: &ActiveJob, blocker: Option<&Blocker>) -> Duration {
        let observation = &active.observation;
        let check = match (&active.conflict, &self.next.waiting_since) {
            (None, None) if active.action == AttemptAction::Keep && !observation.is_complete() => {
                INCOMPLETE_DELAY
            }
            // An installation with GPUs is a new operator, which starts with a list of all jobs.
            (Some(ApplyConflict::GpusDisabled), _) | (None, None) => RESYNC_DELAY,
            // The watch of the pods sees when the scheduler finds a node.
            (None, Some(_)) if blocker.is_some() && observation.waits_for_nodes() => RESYNC_DELAY,
            (Some(ApplyConflict::Rejected { .. }), _) => REJECTION_RETRY_DELAY,
            (Some(_), _) => MIN_DELAY,
            (None, Some(since)) => (elapsed(since.0, self.now) / 6).clamp(MIN_DELAY, MAX_WAITING_DELAY),
        };
        let deadline = self.deadlines(active).into_iter().flatten().min();
        // Times in a status have whole seconds; a second later a deadline has certainly passed.
        let deadline = deadline.map(|left| left + Duration::from_secs(1));
        deadline.map_or(jittered(self.job, check), |deadline| deadline.min(jittered(self.job, check)))
    }

    /// The time left until each deadline, by the operator's clock.
    fn deadlines(&self, active: &ActiveJob) -> [Option<Duration>; 3] {
        let lifecycle = &self.job.spec.lifecycle;
        // A startup deadline that has passed without evidence that no world forms is no reason to hurry.
        let left = |limit: u32, since: jiff::Timestamp| {
            Duration::from_secs(u64::from(limit)).checked_sub(elapsed(since, self.now))
        };
        let startup = self.next.waiting_since.as_ref().filter(|_| active.action == AttemptAction::Keep);
        let started = self.next.start_time.as_ref();
        [
            startup.and_then(|since| left(lifecycle.startup_deadline_seconds, since.0)),
            lifecycle.active_deadline_seconds.zip(started).and_then(|(limit, since)| left(limit, since.0)),
            match active.action {
                AttemptAction::BackOff(end) => Some(elapsed(self.now, end)),
                _ => None,
            },
        ]
    }
}

/// Up to a tenth longer, so that jobs of the same age do not all come at once.
fn jittered(job: &DatJob, delay: Duration) -> Duration {
    jitter::jittered(&job.uid().unwrap_or_default(), delay, delay + delay / 10)
}
