//! Stage 4: writes the children. `status` takes its result, so the order of the stages is fixed.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use datjob_api::datjob::DatJob;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::StatefulSet, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget},
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::info;

use super::{
    Context,
    attempt::AttemptAction,
    build::Children,
    identity::{FIELD_MANAGER, Identity},
    observe::Observation,
    ownership::{self, ApplyConflict},
    validate::InvalidSpec,
};
use crate::{
    calls::{CallError, call},
    jitter::fnv1a,
};

/// Annotation with a hash of the applied object, for objects that may change during a job.
const ANNOTATION_HASH: &str = "datjob.io/applied-hash";
/// How long a successful check of the children is valid.
const CHILDREN_CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// What to write.
#[derive(Debug)]
pub enum Plan {
    /// The children of an active job.
    Run(Box<Children>),
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
        Plan::CleanUp => {
            if observation.stateful_set.is_some_and(|set| set.replicas != 0) {
                scale_to_zero(context, identity).await?;
            }
            delete::<PodDisruptionBudget>(context, identity, &identity.name).await?;
            Ok(Applied::Finished)
        }
        Plan::Run(children) => {
            let action = children.action;
            let written = match observation.conflict.clone() {
                Some(conflict) => Err(ApplyError::Conflict(conflict)),
                None => apply_children(context, job, identity, *children).await,
            };
            let conflict = match written {
                Ok(()) => None,
                Err(ApplyError::Conflict(conflict)) => Some(conflict),
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
    mut children: Children,
) -> Result<(), ApplyError> {
    let hash = hash(children.network_policy.as_ref());
    if let Some(policy) = &mut children.network_policy {
        policy.annotations_mut().insert(ANNOTATION_HASH.to_owned(), format!("{hash:016x}"));
    }
    match children.action {
        AttemptAction::Start(attempt) => {
            confirm_current(context, job, identity).await?;
            ensure_supporting(context, identity, &children, true).await?;
            if let Some(set) = &children.stateful_set {
                // Last, because its pods need all other children.
                server_side_apply(context, set.as_ref()).await?;
                info!(job = %identity.name, namespace = %identity.namespace, attempt, "Applied the StatefulSet.");
            }
        }
        AttemptAction::ScaleDown => {
            ensure_supporting_if_due(context, identity, &children, hash).await?;
            scale_to_zero(context, identity).await?;
        }
        AttemptAction::Keep | AttemptAction::AwaitTermination(_) | AttemptAction::BackOff(_) => {
            return ensure_supporting_if_due(context, identity, &children, hash).await;
        }
    }
    Ok(())
}

/// Checks that the cached job is current: a stale cache could restart a job that has just finished.
async fn confirm_current(context: &Context, job: &DatJob, identity: &Identity) -> Result<(), ApplyError> {
    let api = Api::<DatJob>::namespaced(context.client.clone(), &identity.namespace);
    let operation = format!("get DatJob {}/{}", identity.namespace, identity.name);
    let newest = call(operation, api.get_metadata_opt(&identity.name)).await?;
    match newest {
        Some(newest)
            if newest.resource_version() == job.resource_version()
                && newest.metadata.deletion_timestamp.is_none() =>
        {
            Ok(())
        }
        _ => Err(ApplyError::Stale),
    }
}

/// Checks the other children, unless they were checked within [`CHILDREN_CHECK_INTERVAL`].
async fn ensure_supporting_if_due(
    context: &Context,
    identity: &Identity,
    children: &Children,
    hash: u64,
) -> Result<(), ApplyError> {
    let checked = context.cache.get(&identity.uid).children_checked;
    if checked.is_some_and(|(before, when)| before == hash && when.elapsed() < CHILDREN_CHECK_INTERVAL) {
        return Ok(());
    }
    ensure_supporting(context, identity, children, false).await?;
    context.cache.update(&identity.uid, |job| job.children_checked = Some((hash, Instant::now())));
    Ok(())
}

/// Creates missing children other than the StatefulSet. `force` applies existing ones again. The NetworkPolicy always
/// follows the spec.
async fn ensure_supporting(
    context: &Context,
    identity: &Identity,
    children: &Children,
    force: bool,
) -> Result<(), ApplyError> {
    ensure(context, identity, &children.config_map, |_| false).await?;
    ensure(context, identity, &children.service, |_| force).await?;
    ensure(context, identity, &children.disruption_budget, |_| force).await?;
    match &children.network_policy {
        Some(policy) => {
            let desired = policy.annotations().get(ANNOTATION_HASH);
            ensure(context, identity, policy, |found| found.annotations().get(ANNOTATION_HASH) != desired)
                .await
        }
        None => Ok(delete::<NetworkPolicy>(context, identity, &children.network_policy_name).await?),
    }
}

/// Applies a child if it is missing or `outdated`. Never overwrites an object of another owner.
async fn ensure<K>(
    context: &Context,
    identity: &Identity,
    desired: &K,
    outdated: impl FnOnce(&PartialObjectMeta<K>) -> bool,
) -> Result<(), ApplyError>
where
    K: Child,
{
    let found = get_metadata::<K>(context, identity, &desired.name_any()).await?;
    if let Some(found) = found {
        if let Some(conflict) = ownership::find_conflict_of_kind(&K::kind(&()), &found, identity) {
            return Err(ApplyError::Conflict(conflict));
        }
        if !outdated(&found) {
            return Ok(());
        }
    }
    Ok(server_side_apply(context, desired).await?)
}

/// Deletes a child if it exists and belongs to the job.
async fn delete<K>(context: &Context, identity: &Identity, name: &str) -> Result<(), CallError>
where
    K: Child,
{
    let Some(found) = get_metadata::<K>(context, identity, name).await? else { return Ok(()) };
    if ownership::find_conflict_of_kind(&K::kind(&()), &found, identity).is_some() {
        return Ok(());
    }
    let api = Api::<K>::namespaced(context.client.clone(), &identity.namespace);
    let only_this = Preconditions { uid: found.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::background().preconditions(only_this);
    let operation = format!("delete {} {}/{name}", K::kind(&()), identity.namespace);
    match call(operation, api.delete(name, &params)).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

async fn get_metadata<K>(
    context: &Context,
    identity: &Identity,
    name: &str,
) -> Result<Option<PartialObjectMeta<K>>, CallError>
where
    K: Child,
{
    let api = Api::<K>::namespaced(context.client.clone(), &identity.namespace);
    call(format!("get {} {}/{name}", K::kind(&()), identity.namespace), api.get_metadata_opt(name)).await
}

/// Applies an object with server-side apply.
async fn server_side_apply<K>(context: &Context, desired: &K) -> Result<(), CallError>
where
    K: Child,
{
    let (name, namespace) = (desired.name_any(), desired.namespace().unwrap_or_default());
    let api = Api::<K>::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let operation = format!("apply {} {namespace}/{name}", K::kind(&()));
    call(operation, api.patch(&name, &params, &Patch::Apply(desired))).await.map(drop)
}

async fn scale_to_zero(context: &Context, identity: &Identity) -> Result<(), CallError> {
    let api = Api::<StatefulSet>::namespaced(context.client.clone(), &identity.namespace);
    let scale = serde_json::json!({"spec": {"replicas": 0}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let operation = format!("scale StatefulSet {}/{} to 0", identity.namespace, identity.name);
    match call(operation, api.patch_scale(&identity.name, &params, &Patch::Merge(scale))).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => {
            info!(job = %identity.name, namespace = %identity.namespace, "Scaled the StatefulSet to 0.");
            Ok(())
        }
    }
}

/// A child: a namespaced object of a static type.
trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

fn hash(policy: Option<&NetworkPolicy>) -> u64 {
    fnv1a(&serde_json::to_vec(&policy).unwrap_or_default())
}
