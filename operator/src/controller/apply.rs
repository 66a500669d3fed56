//! Stage 4: writes the children. What it returns is what `status` takes, so the order cannot be broken.

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

/// Annotation with a hash of what was applied, where an object may change during a job.
const ANNOTATION_HASH: &str = "datjob.io/applied-hash";
/// How long children that were as they should be are not looked at again.
const CHILDREN_CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// What is to be written.
#[derive(Debug)]
pub enum Plan {
    /// The children of a job that runs.
    Run(Box<Children>),
    /// The job is over: give its resources back.
    CleanUp,
    /// The spec cannot be run: nothing is written.
    Reject(InvalidSpec),
}

/// What was done.
#[derive(Debug)]
pub enum Applied {
    /// The job runs, or is on its way.
    Active(Box<ActiveJob>),
    /// The job is over and holds nothing.
    Finished,
    /// The spec cannot be run.
    Rejected(InvalidSpec),
}

/// What was found and done for a job that runs.
#[derive(Debug)]
pub struct ActiveJob {
    /// What was found.
    pub observation: Observation,
    /// What was asked for.
    pub action: AttemptAction,
    /// Why it was not done.
    pub conflict: Option<ApplyConflict>,
}

/// Why a stage ended early.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The job in the operator's cache is not the newest; the newest comes by the watch.
    #[error("the job changed during the reconciliation; reconciling again")]
    Stale,
    /// Something is in the way.
    #[error("{}", .0.message())]
    Conflict(ApplyConflict),
}

/// Writes what is to be written.
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
                // The last: its pods need all others.
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

/// Reads the job before anything is created for it: a cache that lags behind could revive one that just ended.
async fn confirm_current(context: &Context, job: &DatJob, identity: &Identity) -> Result<(), ApplyError> {
    let api = Api::<DatJob>::namespaced(context.client.clone(), &identity.namespace);
    let what = format!("get DatJob {}/{}", identity.namespace, identity.name);
    let newest = call(what, api.get_metadata_opt(&identity.name)).await?;
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

/// Looks after the other children, unless they were looked after a moment ago.
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

/// The children beside the StatefulSet: made again where they are missing; written anew with a new attempt. The
/// NetworkPolicy follows the spec at all times.
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
            let wanted = policy.annotations().get(ANNOTATION_HASH);
            ensure(context, identity, policy, |found| found.annotations().get(ANNOTATION_HASH) != wanted)
                .await
        }
        None => Ok(delete::<NetworkPolicy>(context, identity, &children.network_policy_name).await?),
    }
}

/// Writes a child where it is missing or `outdated`; never over an object of someone else.
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

/// Deletes a child, if it is there and the job's own.
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
    let what = format!("delete {} {}/{name}", K::kind(&()), identity.namespace);
    match call(what, api.delete(name, &params)).await {
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

/// Server-side apply, with one field manager for all that the operator writes.
async fn server_side_apply<K>(context: &Context, desired: &K) -> Result<(), CallError>
where
    K: Child,
{
    let (name, namespace) = (desired.name_any(), desired.namespace().unwrap_or_default());
    let api = Api::<K>::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let what = format!("apply {} {namespace}/{name}", K::kind(&()));
    call(what, api.patch(&name, &params, &Patch::Apply(desired))).await.map(drop)
}

async fn scale_to_zero(context: &Context, identity: &Identity) -> Result<(), CallError> {
    let api = Api::<StatefulSet>::namespaced(context.client.clone(), &identity.namespace);
    let scale = serde_json::json!({"spec": {"replicas": 0}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let what = format!("scale StatefulSet {}/{} to 0", identity.namespace, identity.name);
    match call(what, api.patch_scale(&identity.name, &params, &Patch::Merge(scale))).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => {
            info!(job = %identity.name, namespace = %identity.namespace, "Scaled the StatefulSet to 0.");
            Ok(())
        }
    }
}

/// What all children are: objects of a namespace whose type is known.
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
