//! Decides which attempt to run and what to do for it. Pure.
//!
//! The status names the desired attempt, and the StatefulSet's annotation names its current attempt. The pod template
//! is written once per attempt, while there are no pods; later only the replicas change. The operator compares the two
//! numbers, never the templates. A newer operator therefore does not change running pods.

use std::time::Duration;

use datjob_api::datjob::DatJobStatus;
use jiff::{SignedDuration, Timestamp};

use super::{identity::Identity, observe::Observation};
use crate::jitter;

/// What to do for the desired attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptAction {
    /// Apply the StatefulSet of this attempt. There are no pods.
    Start(u32),
    /// The attempt runs: do not change the StatefulSet.
    Keep,
    /// An earlier attempt was abandoned: scale its StatefulSet to 0.
    ScaleDown,
    /// Wait for this number of old pods to terminate.
    AwaitTermination(usize),
    /// Start the attempt at this time.
    BackOff(Timestamp),
}

/// Decides what to do for the desired attempt. `now` is the operator's clock, which wrote `waitingSince` too.
pub fn next_action(
    identity: &Identity,
    status: Option<&DatJobStatus>,
    observation: &Observation,
    now: Timestamp,
) -> AttemptAction {
    let desired = DatJobStatus::desired_attempt(status);
    match &observation.stateful_set {
        Some(set) if set.attempt >= desired => return AttemptAction::Keep,
        Some(set) if set.replicas > 0 => return AttemptAction::ScaleDown,
        _ => {}
    }
    if !observation.pods.is_empty() {
        return AttemptAction::AwaitTermination(observation.pods.len());
    }
    match status.and_then(|status| status.waiting_since.as_ref()) {
        Some(since) if desired > 1 && now < backoff_end(identity, desired, since.0) => {
            AttemptAction::BackOff(backoff_end(identity, desired, since.0))
        }
        _ => AttemptAction::Start(desired),
    }
}

/// When an attempt starts whose predecessor was abandoned at `since`. The jitter keeps jobs that compete for the same
/// nodes from starting at the same time.
fn backoff_end(identity: &Identity, attempt: u32, since: Timestamp) -> Timestamp {
    let key = format!("{}/{attempt}", identity.uid);
    let pause = jitter::jittered(&key, Duration::from_secs(10), Duration::from_mins(1));
    since
        .saturating_add(SignedDuration::try_from(pause).unwrap_or(SignedDuration::from_secs(60)))
        .unwrap_or(since)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::controller::{ownership::Owner, watch::StatefulSetState};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn action(
        status: Option<(u32, Option<i64>)>,
        set: Option<(u32, i32)>,
        pods: usize,
        now: i64,
    ) -> AttemptAction {
        let identity = Identity { name: "job".into(), namespace: "ns".into(), uid: "uid".into() };
        let status = status.map(|(attempt, since)| DatJobStatus {
            attempt,
            waiting_since: since.map(|second| Time(at(second))),
            ..DatJobStatus::default()
        });
        let observation = Observation {
            stateful_set: set.map(|(attempt, replicas)| {
                Arc::new(StatefulSetState {
                    owner: Owner::of(&identity.child("job")),
                    uid: "set".into(),
                    attempt,
                    replicas,
                    created: Some(0),
                    ready: 0,
                })
            }),
            pods: (0..pods).map(|_| Arc::default()).collect(),
            ..Observation::default()
        };
        next_action(&identity, status.as_ref(), &observation, at(now))
    }

    #[test]
    fn starts_a_new_job_immediately() {
        assert_eq!(action(None, None, 0, 100), AttemptAction::Start(1));
        assert_eq!(action(Some((0, None)), None, 0, 100), AttemptAction::Start(1));
    }

    #[test]
    fn keeps_a_running_attempt() {
        assert_eq!(action(Some((1, None)), Some((1, 4)), 4, 100), AttemptAction::Keep);
        // Scaled manually: the startup deadline handles it. Scaling up could restart a job that has just finished.
        assert_eq!(action(Some((1, None)), Some((1, 0)), 0, 100), AttemptAction::Keep);
        // Applied by an operator that stopped before it wrote the status.
        assert_eq!(action(Some((0, None)), Some((1, 4)), 0, 100), AttemptAction::Keep);
    }

    #[test]
    fn replaces_an_abandoned_attempt_in_steps() {
        assert_eq!(action(Some((2, Some(100))), Some((1, 4)), 4, 100), AttemptAction::ScaleDown);
        assert_eq!(action(Some((2, Some(100))), Some((1, 0)), 3, 101), AttemptAction::AwaitTermination(3));
        let AttemptAction::BackOff(end) = action(Some((2, Some(100))), Some((1, 0)), 0, 102) else {
            panic!()
        };
        assert!(end >= at(110) && end <= at(160), "{end}");
        assert_eq!(
            action(Some((2, Some(100))), Some((1, 0)), 0, end.as_second() + 1),
            AttemptAction::Start(2)
        );
    }

    #[test]
    fn recreates_a_deleted_stateful_set_after_its_pods_terminate() {
        assert_eq!(action(Some((1, None)), None, 2, 100), AttemptAction::AwaitTermination(2));
        assert_eq!(action(Some((1, None)), None, 0, 100), AttemptAction::Start(1));
    }
}
