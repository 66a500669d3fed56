//! Stage 4: records which installation manages a job, before anything is created for it. The jobs of other installations are
//! left alone.
//!
//! The record is written only to the version of the job that was read: of two installations, one gets a conflict.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use datjob_api::datjob::{DatJob, DatJobStatus};
use jiff::Timestamp;
use tracing::{debug, info};

use super::{
    Context,
    apply::{self, ActiveJob, Applied, ApplyError},
    attempt::AttemptAction,
    identity::Identity,
    observe::Observation,
    status, update,
};
use crate::{calls::call, conditions, installation::Management};

/// The installations that were found to manage jobs in this installation's scope.
#[derive(Debug, Default)]
pub struct OtherInstallations(Mutex<HashSet<String>>);

impl OtherInstallations {
    /// Adds an installation. Returns whether it is new.
    fn insert(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }
}

/// Whether this installation manages a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Yes, or the job has finished: nothing is created for it.
    Own,
    /// No installation does. It must be [recorded](record) before anything is created.
    Unclaimed,
    /// Another installation does.
    Left,
}

/// Returns which installation manages a job, and forgets a job of another one.
pub fn check(context: &Context, job: &DatJob, identity: &Identity) -> Claim {
    let management = context.installation.management(job);
    match &management {
        Management::Own => Claim::Own,
        Management::Unclaimed if job.status.as_ref().is_some_and(conditions::is_finished) => Claim::Own,
        Management::Unclaimed => Claim::Unclaimed,
        Management::Assigned(owner) | Management::Claimed(owner) => {
            leave(context, identity, owner, matches!(management, Management::Claimed(_)));
            Claim::Left
        }
    }
}

/// Records this installation in the status of an unclaimed job. Returns the job with that status; `None` if it was deleted.
pub async fn record(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    observation: &Observation,
    action: AttemptAction,
    now: Timestamp,
) -> Result<Option<DatJob>, ApplyError> {
    let status = DatJobStatus {
        managed_by: context.installation.id().to_owned(),
        ..claimed_status(job, observation, action, now)
    };
    let operation = format!("claim DatJob {}/{}", identity.namespace, identity.name);
    match call(operation, update::apply_status(context, job, identity, &status)).await {
        Ok(claimed) => {
            update::remember(context, job, identity, claimed.clone());
            Ok(Some(claimed))
        }
        Err(error) if error.is_conflict() => Err(ApplyError::Stale),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The status of a job that is claimed. For a new job it is the one that follows from the creation of its children: if that
/// succeeds, no second write is necessary.
fn claimed_status(
    job: &DatJob,
    observation: &Observation,
    action: AttemptAction,
    now: Timestamp,
) -> DatJobStatus {
    if let AttemptAction::Start(_) = action
        && apply::is_new(job)
    {
        let started = ActiveJob { observation: observation.clone(), action, conflict: None };
        return status::status(job, &Applied::Active(Box::new(started)), now).status;
    }
    // An API server with the current definition sets this default itself.
    let unobserved = || DatJobStatus { observed_generation: -1, ..DatJobStatus::default() };
    job.status.clone().unwrap_or_else(unobserved)
}

/// Forgets what is cached of a job that another installation manages. Requests nothing from the API server.
fn leave(context: &Context, identity: &Identity, owner: &str, claimed: bool) {
    context.reports.set_target(identity, None);
    let mut known = false;
    context.cache.update(&identity.uid, |job| known = std::mem::replace(&mut job.left, true));
    if !known {
        debug!(job = %identity.name, namespace = %identity.namespace, owner, "Another installation manages this job; leaving it alone.");
    }
    // Tenants choose `spec.managedBy`; only installations and administrators write the status.
    if claimed && context.others.insert(owner) {
        info!(
            owner,
            "Another installation manages jobs in the scope of this one. If it is gone, hand its jobs over by changing \
             their status.managedBy."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::minimal;

    #[test]
    fn a_claim_of_a_job_that_is_not_new_changes_nothing_else_in_the_status() {
        let mut job = minimal();
        let status = |job: &DatJob, action| {
            claimed_status(job, &Observation::default(), action, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(status(&job, AttemptAction::Keep).observed_generation, -1);
        let before = DatJobStatus { attempt: 2, state: "Running".into(), ..DatJobStatus::default() };
        job.status = Some(before.clone());
        for action in [AttemptAction::Keep, AttemptAction::Start(2)] {
            assert_eq!(status(&job, action), before);
        }
    }

    #[test]
    fn the_status_of_a_new_job_is_that_after_its_start() {
        let mut job = minimal();
        let (action, now) = (AttemptAction::Start(1), Timestamp::UNIX_EPOCH);
        let claimed = claimed_status(&job, &Observation::default(), action, now);
        assert_eq!((claimed.attempt, claimed.state.as_str()), (1, "Pending"));
        job.status = Some(claimed.clone());
        let started = ActiveJob { observation: Observation::default(), action, conflict: None };
        let after = status::status(&job, &Applied::Active(Box::new(started)), now);
        assert_eq!(after.status, claimed);
        assert_eq!(after.events.len(), 1, "{:?}", after.events);
    }
}
