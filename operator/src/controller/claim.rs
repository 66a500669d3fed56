//! Stage 0: records which installation manages a job, before anything is created for it, and leaves the jobs of other
//! installations alone.
//!
//! The record is written only to the version of the job that was read: of two installations, one gets a conflict.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use datjob_api::datjob::{DatJob, DatJobStatus};
use tracing::{debug, info};

use super::{Context, apply::ApplyError, identity::Identity, update};
use crate::{
    calls::call,
    installation::{Installation, Management},
};

/// The installations that were found to manage jobs in this installation's scope.
#[derive(Debug, Default)]
pub struct OtherInstallations(Mutex<HashSet<String>>);

impl OtherInstallations {
    /// Adds an installation. Returns whether it is new.
    fn insert(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }
}

/// Whether the stages may run for a job.
#[derive(Debug)]
pub enum Claim {
    /// This installation manages the job.
    Own,
    /// This installation has just recorded itself in this version of the job.
    Recorded(Box<DatJob>),
    /// Another installation manages the job, or the job was deleted.
    Left,
}

/// Claims a job that no installation manages. A `finished` job is not claimed: nothing is created for it.
pub async fn claim(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    finished: bool,
) -> Result<Claim, ApplyError> {
    let management = context.installation.management(job);
    match &management {
        Management::Own => Ok(Claim::Own),
        Management::Unclaimed if finished => Ok(Claim::Own),
        Management::Unclaimed => record(context, job, identity).await,
        Management::Assigned(owner) | Management::Claimed(owner) => {
            leave(context, identity, owner, matches!(management, Management::Claimed(_)));
            Ok(Claim::Left)
        }
    }
}

async fn record(context: &Context, job: &DatJob, identity: &Identity) -> Result<Claim, ApplyError> {
    let status = claimed_status(&context.installation, job);
    let operation = format!("claim DatJob {}/{}", identity.namespace, identity.name);
    match call(operation, update::apply_status(context, job, identity, &status)).await {
        Ok(job) => Ok(Claim::Recorded(Box::new(job))),
        Err(error) if error.is_conflict() => Err(ApplyError::Stale),
        Err(error) if error.is_not_found() => Ok(Claim::Left),
        Err(error) => Err(error.into()),
    }
}

/// The status of a job, with this installation in it.
fn claimed_status(installation: &Installation, job: &DatJob) -> DatJobStatus {
    // An API server with the current definition sets this default itself.
    let unobserved = || DatJobStatus { observed_generation: -1, ..DatJobStatus::default() };
    let status = job.status.clone().unwrap_or_else(unobserved);
    DatJobStatus { managed_by: installation.id().to_owned(), ..status }
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
    fn a_claim_changes_nothing_else_in_the_status() {
        let installation = Installation::new(Some("ns"), "operator");
        let mut job = minimal();
        let status = claimed_status(&installation, &job);
        assert_eq!((status.observed_generation, status.managed_by.as_str()), (-1, "ns/operator"));
        let before = DatJobStatus { attempt: 2, state: "Running".into(), ..DatJobStatus::default() };
        job.status = Some(before.clone());
        let status = claimed_status(&installation, &job);
        assert_eq!(status, DatJobStatus { managed_by: "ns/operator".into(), ..before });
    }
}
