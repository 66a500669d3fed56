//! Which attempt is to run, and what that asks for now. Pure.
//!
//! The status says which attempt is wanted, the StatefulSet's annotation which one it was written for. What an attempt
//! runs is frozen: its template is written once, at zero pods; afterwards only the replicas are touched. So only the
//! two numbers are compared, never the templates, and a newer operator leaves running pods alone.

use std::time::Duration;

use datjob_api::datjob::DatJobStatus;
use jiff::{SignedDuration, Timestamp};

use super::{identity::Identity, observe::Observation};
use crate::jitter;

/// What the wanted attempt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptAction {
    /// Write the StatefulSet for this attempt: there are no pods.
    Start(u32),
    /// The attempt runs: leave the StatefulSet alone.
    Keep,
    /// An earlier attempt was given up: scale it to 0.
    ScaleDown,
    /// An earlier attempt's pods are still there, so many.
    AwaitTermination(usize),
    /// The resources were given back and are asked for again at this time.
    BackOff(Timestamp),
}

/// What the wanted attempt asks for now.
pub fn next_action(
    identity: &Identity,
    status: Option<&DatJobStatus>,
    observation: &Observation,
    now: Timestamp,
) -> AttemptAction {
    let wanted = DatJobStatus::wanted_attempt(status);
    match &observation.stateful_set {
        Some(set) if set.attempt >= wanted => return AttemptAction::Keep,
        Some(set) if set.replicas > 0 => return AttemptAction::ScaleDown,
        _ => {}
    }
    if !observation.pods.is_empty() {
        return AttemptAction::AwaitTermination(observation.pods.len());
    }
    match status.and_then(|status| status.waiting_since.as_ref()) {
        Some(since) if wanted > 1 && now < backoff_end(identity, wanted, since.0) => {
            AttemptAction::BackOff(backoff_end(identity, wanted, since.0))
        }
        _ => AttemptAction::Start(wanted),
    }
}

/// When an attempt begins whose predecessor was given up at `since`: jobs that gave way to each other must not meet
/// again at the same second.
fn backoff_end(identity: &Identity, attempt: u32, since: Timestamp) -> Timestamp {
    let key = format!("{}/{attempt}", identity.uid);
    let pause = jitter::jittered(&key, Duration::from_secs(10), Duration::from_mins(1));
    since
        .saturating_add(SignedDuration::try_from(pause).unwrap_or(SignedDuration::from_secs(60)))
        .unwrap_or(since)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::controller::observe::StatefulSetState;

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
            stateful_set: set.map(|(attempt, replicas)| StatefulSetState {
                uid: "set".into(),
                attempt,
                replicas,
                ready: 0,
            }),
            pods: vec![Pod::default(); pods],
            ..Observation::default()
        };
        next_action(&identity, status.as_ref(), &observation, at(now))
    }

    #[test]
    fn a_new_job_starts_at_once() {
        assert_eq!(action(None, None, 0, 100), AttemptAction::Start(1));
        assert_eq!(action(Some((0, None)), None, 0, 100), AttemptAction::Start(1));
    }

    #[test]
    fn a_running_attempt_is_left_alone() {
        assert_eq!(action(Some((1, None)), Some((1, 4)), 4, 100), AttemptAction::Keep);
        // Scaled by hand: the startup deadline deals with it; scaling up here could revive a job that just ended.
        assert_eq!(action(Some((1, None)), Some((1, 0)), 0, 100), AttemptAction::Keep);
        // Written by an operator that did not live to note it in the status.
        assert_eq!(action(Some((0, None)), Some((1, 4)), 0, 100), AttemptAction::Keep);
    }

    #[test]
    fn an_attempt_that_was_given_up_goes_step_by_step() {
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
    fn a_deleted_stateful_set_is_made_again_without_its_old_pods() {
        assert_eq!(action(Some((1, None)), None, 2, 100), AttemptAction::AwaitTermination(2));
        assert_eq!(action(Some((1, None)), None, 0, 100), AttemptAction::Start(1));
    }
}
