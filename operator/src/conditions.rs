//! Types of a job's conditions, and functions to find and set them. Pure.

use datjob_api::datjob::DatJobStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::text::truncate;

/// A world has formed, or the job is complete.
pub const READY: &str = "Ready";
/// The first world of an attempt is forming (kstatus: in progress).
pub const RECONCILING: &str = "Reconciling";
/// The job needs the attention of its user (kstatus: failed).
pub const STALLED: &str = "Stalled";
/// The job is complete or failed.
pub const FINISHED: &str = "Finished";
/// The status contains the results.
pub const COMPLETE: &str = "Complete";
/// The job failed.
pub const FAILED: &str = "Failed";

/// Training overfits to a single-step attack. Absent until that happens first.
pub const OVERFITTING: &str = "CatastrophicOverfitting";

/// Pods wait until a volume works again. Absent until that happens first.
pub const STORAGE_TROUBLE: &str = "StorageTrouble";

/// Reason of the conditions of a job that the operator cannot decode.
pub const UNDECODABLE: &str = "Undecodable";

/// Maximum size of a message.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The condition of this type.
pub fn find<'a>(status: &'a DatJobStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of this type exists and is true.
pub fn is_true(status: &DatJobStatus, kind: &str) -> bool {
    find(status, kind).is_some_and(|condition| condition.status == "True")
}

/// Whether the job has finished. Its outcome is final, even if an operator of another release changed its conditions.
pub fn is_finished(status: &DatJobStatus) -> bool {
    is_true(status, FINISHED) || status.completion_time.is_some()
}

/// Sets a condition. Its last transition time changes only with its status.
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
    fn the_last_transition_time_changes_only_with_the_status() {
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
