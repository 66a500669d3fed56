//! Conditions: what machines read of a job.

use datjob_api::datjob::DatJobStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::text::truncate;

/// The world runs (or the job is complete): nothing is asked of anyone.
pub const READY: &str = "Ready";
/// The first world of an attempt forms (kstatus: in progress).
pub const RECONCILING: &str = "Reconciling";
/// Only a person can help (kstatus: failed).
pub const STALLED: &str = "Stalled";
/// The job is over, one way or the other.
pub const FINISHED: &str = "Finished";
/// The results stand in the status.
pub const COMPLETE: &str = "Complete";
/// The job is over without results.
pub const FAILED: &str = "Failed";

/// Training overfits to an attack of a single step; absent where it never did.
pub const OVERFITTING: &str = "CatastrophicOverfitting";

/// Longest message that the operator writes into a condition.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The condition of that type, if there is one.
pub fn find<'a>(status: &'a DatJobStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of that type is there and true.
pub fn is_true(status: &DatJobStatus, kind: &str) -> bool {
    find(status, kind).is_some_and(|condition| condition.status == "True")
}

/// Sets a condition; its last transition is now only where its status changes.
pub fn set(
    status: &mut DatJobStatus,
    kind: &str,
    value: bool,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) {
    let value = if value { "True" } else { "False" };
    let since = match find(status, kind) {
        Some(before) if before.status == value => before.last_transition_time.clone(),
        _ => Time(now),
    };
    let condition = Condition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: truncate(message, MAX_MESSAGE_BYTES),
        observed_generation: Some(generation),
        last_transition_time: since,
    };
    match status.conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(place) => *place = condition,
        None => status.conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transition_is_kept_while_the_status_is() {
        let mut status = DatJobStatus::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        set(&mut status, READY, false, "Starting", "a", 1, at(10));
        set(&mut status, READY, false, "Forming", "b", 2, at(20));
        let ready = find(&status, READY).unwrap();
        assert_eq!(ready.last_transition_time.0, at(10));
        assert_eq!((ready.reason.as_str(), ready.observed_generation), ("Forming", Some(2)));
        set(&mut status, READY, true, "Training", "c", 2, at(30));
        assert_eq!(find(&status, READY).unwrap().last_transition_time.0, at(30));
        assert!(is_true(&status, READY) && !is_true(&status, FAILED));
        assert_eq!(status.conditions.len(), 1);
    }
}
