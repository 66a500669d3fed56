//! A finished job: its outcome is final, and only its conditions are kept consistent. Pure.
//!
//! An operator of another release may have changed conditions of a job that it could not decode.

use datjob_api::datjob::DatJobStatus;

use super::{State, StatusBuilder};
use crate::conditions::{self, COMPLETE, FAILED, FINISHED, READY, RECONCILING, STALLED, UNDECODABLE};

impl StatusBuilder<'_> {
    /// Updates the observed generation, and rebuilds the conditions that contradict the outcome.
    pub(super) fn keep_finished(&mut self) {
        let complete = is_complete(&self.previous);
        let (reason, message) = outcome(&self.previous);
        for (kind, value) in expected(complete) {
            let consistent = conditions::find(&self.previous, kind)
                .is_some_and(|found| (found.status == "True") == value && found.reason != UNDECODABLE);
            if !consistent {
                let message = if value || kind == READY { message.as_str() } else { "" };
                self.set(kind, value, &reason, message);
            }
        }
        for condition in &mut self.next.conditions {
            condition.observed_generation = Some(self.generation);
        }
    }
}

/// The conditions of a finished job, and their values.
fn expected(complete: bool) -> [(&'static str, bool); 6] {
    [
        (READY, complete),
        (RECONCILING, false),
        (STALLED, !complete),
        (FINISHED, true),
        (COMPLETE, complete),
        (FAILED, !complete),
    ]
}

/// Whether a finished job is complete. The state decides if its conditions contradict each other.
fn is_complete(status: &DatJobStatus) -> bool {
    match (conditions::is_true(status, COMPLETE), conditions::is_true(status, FAILED)) {
        (true, false) => true,
        (false, true) => false,
        _ => State::parse(&status.state) == State::Complete,
    }
}

/// Reason and message of the outcome.
fn outcome(status: &DatJobStatus) -> (String, String) {
    let named = [FINISHED, COMPLETE, FAILED].into_iter().find_map(|kind| {
        conditions::find(status, kind).filter(|found| found.status == "True" && found.reason != UNDECODABLE)
    });
    named.map_or_else(
        || {
            (
                if is_complete(status) { State::Complete } else { State::Failed }.as_str().to_owned(),
                String::new(),
            )
        },
        |found| (found.reason.clone(), found.message.clone()),
    )
}
