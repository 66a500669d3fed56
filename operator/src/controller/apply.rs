//! Stage 5: writes the children. `status` takes its result, so the order of the stages is fixed.
//!
//! An object is created, or replaced as a whole where the operator's version of it has changed. The watches say which
//! objects exist. They may be late: creating an object that exists fails, and replacing one needs its current version.

use datjob_api::datjob::DatJob;
use k8s_openapi::api::{
    apps::v1::StatefulSet, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt as _};
use tracing::info;

use self::write::{Child, create, delete, get, replace, scale_to_zero};
use super::{
    Context,
    attempt::AttemptAction,
    blockers::WarningEvent,
    build::Children,
    identity::Identity,
    observe::{Observation, pods},
    ownership::{self, ApplyConflict},
    validate::InvalidSpec,
    watch::{ChildState, Index, objects},
};
use crate::calls::{CallError, call};

mod write;

/// What to write.
#[derive(Debug)]
pub enum Plan {
    /// The children of an active job.
    Run(Box<Children>),
    /// Nothing, because this installation cannot start the attempt.
    Wait(AttemptAction, ApplyConflict),
    /// Nothing for a finished job: release its resources.
    CleanUp,
    /// Nothing, because the spec is invalid.
    Reject(InvalidSpec),
}

/// Result of this stage.
#[derive(Debug)]
pub enum Applied {
    /// The job is active.
    Active(Box<ActiveJob>),
    /// The job has finished and its resources are released.
    Finished,
    /// The spec is invalid.
    Rejected(InvalidSpec),
}

/// Observation and action of an active job.
#[derive(Debug)]
pub struct ActiveJob {
    /// The observed state.
    pub observation: Observation,
    /// The requested action.
    pub action: AttemptAction,
    /// Why the action failed.
    pub conflict: Option<ApplyConflict>,
}

/// A failure of this stage.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The watch cache has an old version of the job. The watch delivers the current one.
    #[error("the job changed during the reconciliation; reconciling again")]
    Stale,
    /// A child cannot be written.
    #[error("{}", .0.message())]
    Conflict(ApplyConflict),
}

/// Carries out the plan.
pub async fn apply(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    plan: Plan,
    observation: Observation,
) -> Result<Applied, ApplyError> {
    match plan {
        Plan::Reject(invalid) => Ok(Applied::Rejected(invalid)),
        Plan::Wait(action, conflict) => {
            Ok(Applied::Active(Box::new(ActiveJob { observation, action, conflict: Some(conflict) })))
        }
        Plan::CleanUp => {
            if observation.stateful_set.is_some_and(|set| set.replicas != 0) {
                scale_to_zero(context, identity).await?;
            }
            delete::<PodDisruptionBudget>(
                context,
                identity,
                &context.children.disruption_budgets,
                &identity.name,
            )
            .await?;
            Ok(Applied::Finished)
        }
        Plan::Run(children) => {
            let action = children.action;
            let written = match observation.conflict.clone() {
                Some(conflict) => Err(ApplyError::Conflict(conflict)),
                None => apply_children(context, job, identity, &children, &observation).await,
            };
            let conflict = match written {
                Ok(()) => None,
                Err(ApplyError::Conflict(conflict)) => Some(conflict),
                // The spec is immutable: a job that never started never will.
                Err(ApplyError::Call(error)) if error.is_invalid() && never_started(job) => {
                    return Ok(Applied::Rejected(InvalidSpec::new("spec", error.to_string())));
                }
                Err(ApplyError::Call(error)) => Some(ApplyConflict::from_rejection(error)?),
                Err(ApplyError::Stale) => return Err(ApplyError::Stale),
            };
            Ok(Applied::Active(Box::new(ActiveJob { observation, action, conflict })))
        }
    }
}

async fn apply_children(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    children: &Children,
    observation: &Observation,
) -> Result<(), ApplyError> {
    match children.action {
        AttemptAction::Start(attempt) => {
            if !is_new(job) {
                confirm_no_attempt_runs(context, job, identity).await?;
            }
            create(context, identity, &children.config_map).await?;
            write_supporting(context, identity, children, true).await?;
            if let Some(set) = &children.stateful_set {
                // Last, because its pods need all other children.
                start_attempt(context, identity, set, attempt).await?;
                info!(job = %identity.name, namespace = %identity.namespace, attempt, "Wrote the StatefulSet.");
            }
        }
        AttemptAction::ScaleDown => {
            write_supporting(context, identity, children, false).await?;
            scale_to_zero(context, identity).await?;
        }
        AttemptAction::Keep => {
            if is_named_missing(observation.warning.as_ref(), &children.config_map.name_any()) {
                create(context, identity, &children.config_map).await?;
            }
            write_supporting(context, identity, children, false).await?;
        }
        AttemptAction::AwaitTermination(_) | AttemptAction::BackOff(_) => {
            write_supporting(context, identity, children, false).await?;
        }
    }
    Ok(())
}

/// Whether nothing has been created for the job. Its claim is part of its first reconciliation.
pub(super) fn is_new(job: &DatJob) -> bool {
    job.status.as_ref().is_none_or(|status| status.attempt == 0)
}

/// Whether no pod of the job has run. Its children may not have been created at the first try.
fn never_started(job: &DatJob) -> bool {
    job.status
        .as_ref()
        .is_none_or(|status| status.attempt <= 1 && status.generation == 0 && status.start_time.is_none())
}

/// Whether a pod cannot start because the ConfigMap is missing. ConfigMaps are not watched.
fn is_named_missing(warning: Option<&WarningEvent>, config_map: &str) -> bool {
    warning.is_some_and(|warning| warning.message.contains(&format!("configmap \"{config_map}\" not found")))
}

/// Checks with the API server that the job is as watched and has no pods. A late watch could otherwise restart a job that
/// has just finished, or start an attempt beside an earlier one.
async fn confirm_no_attempt_runs(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
) -> Result<(), ApplyError> {
    let api = Api::<DatJob>::namespaced(context.client.clone(), &identity.namespace);
    let operation = format!("get DatJob {}/{}", identity.namespace, identity.name);
    let newest = call(operation, api.get_metadata_opt(&identity.name)).await?;
    let current = newest.is_some_and(|newest| {
        newest.resource_version() == job.resource_version() && newest.metadata.deletion_timestamp.is_none()
    });
    if !current || pods::exist(context, identity).await? {
        return Err(ApplyError::Stale);
    }
    Ok(())
}

/// Creates the StatefulSet of an attempt, or replaces the one of an earlier attempt, which has no pods.
async fn start_attempt(
    context: &Context,
    identity: &Identity,
    set: &StatefulSet,
    attempt: u32,
) -> Result<(), ApplyError> {
    let Some(found) = create(context, identity, set).await? else { return Ok(()) };
    if objects::stateful_set(&found).attempt < attempt {
        replace(context, set, &found.metadata).await?;
    }
    Ok(())
}

/// Creates missing children other than the StatefulSet and the ConfigMap. A start of an attempt (`starts`) also replaces
/// those of an older release. The NetworkPolicy always follows the spec.
async fn write_supporting(
    context: &Context,
    identity: &Identity,
    children: &Children,
    starts: bool,
) -> Result<(), ApplyError> {
    let store = &context.children;
    ensure(context, identity, &store.services, &children.service, starts).await?;
    ensure(context, identity, &store.disruption_budgets, &children.disruption_budget, starts).await?;
    match &children.network_policy {
        Some(policy) => ensure(context, identity, &store.network_policies, policy, true).await,
        None => Ok(delete::<NetworkPolicy>(
            context,
            identity,
            &store.network_policies,
            &children.network_policy_name,
        )
        .await?),
    }
}

/// Creates a child if it is missing. Replaces one with another hash if `follows`. Never changes an object of another owner.
async fn ensure<K: Child>(
    context: &Context,
    identity: &Identity,
    known: &Index<ChildState>,
    desired: &K,
    follows: bool,
) -> Result<(), ApplyError> {
    let name = desired.name_any();
    let hash = objects::child(desired.meta()).hash;
    let found = match known.get(identity, &name) {
        None => match create(context, identity, desired).await? {
            Some(found) => found.meta().clone(),
            None => return Ok(()),
        },
        Some(child) => {
            if let Some(conflict) = ownership::find_conflict(&K::kind(&()), &name, &child.owner, identity) {
                return Err(ApplyError::Conflict(conflict));
            }
            if !follows || child.hash == hash {
                return Ok(());
            }
            get::<K>(context, identity, &name).await?.ok_or(ApplyError::Stale)?.meta().clone()
        }
    };
    if follows && objects::child(&found).hash != hash {
        replace(context, desired, &found).await
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datjob_api::datjob::DatJobStatus;

    use super::*;
    use crate::testing::minimal;

    #[test]
    fn a_job_whose_first_creation_failed_has_not_started() {
        let mut job = minimal();
        assert!(is_new(&job) && never_started(&job));
        job.status = Some(DatJobStatus { attempt: 1, ..DatJobStatus::default() });
        assert!(!is_new(&job) && never_started(&job));
        let formed = DatJobStatus { attempt: 1, generation: 1, ..DatJobStatus::default() };
        for status in [formed, DatJobStatus { attempt: 2, ..DatJobStatus::default() }] {
            job.status = Some(status);
            assert!(!never_started(&job));
        }
    }
}
