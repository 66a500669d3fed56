//! Writes single objects. Never changes an object of another owner.

use std::fmt::Debug;

use k8s_openapi::{NamespaceResourceScope, api::apps::v1::StatefulSet};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::info;

use super::ApplyError;
use crate::{
    calls::{CallError, call},
    controller::{
        Context,
        identity::Identity,
        ownership::{self, Owner},
        watch::{ChildState, Index},
    },
};

/// Creates an object. Returns the existing one with its name, if it belongs to the job.
pub(super) async fn create<K: Child>(
    context: &Context,
    identity: &Identity,
    desired: &K,
) -> Result<Option<K>, ApplyError> {
    let name = desired.name_any();
    let params = PostParams { field_manager: Some(field_manager(context)), ..PostParams::default() };
    let api = api::<K>(context, identity);
    let operation = format!("create {} {}/{name}", K::kind(&()), identity.namespace);
    match call(operation, api.create(&params, desired)).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_conflict() => {
            let found = get::<K>(context, identity, &name).await?.ok_or(ApplyError::Stale)?;
            match ownership::find_conflict(&K::kind(&()), &name, &Owner::of(found.meta()), identity) {
                Some(conflict) => Err(ApplyError::Conflict(conflict)),
                None => Ok(Some(found)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces an object of the job, unless it has changed since it was read.
pub(super) async fn replace<K: Child>(
    context: &Context,
    desired: &K,
    found: &ObjectMeta,
) -> Result<(), ApplyError> {
    let mut desired = desired.clone();
    desired.meta_mut().uid.clone_from(&found.uid);
    desired.meta_mut().resource_version.clone_from(&found.resource_version);
    let (name, namespace) = (desired.name_any(), desired.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(field_manager(context)), ..PostParams::default() };
    let api = Api::<K>::namespaced(context.client.clone(), &namespace);
    let operation = format!("replace {} {namespace}/{name}", K::kind(&()));
    match call(operation, api.replace(&name, &params, &desired)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() => Err(ApplyError::Stale),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn get<K: Child>(
    context: &Context,
    identity: &Identity,
    name: &str,
) -> Result<Option<K>, CallError> {
    let operation = format!("get {} {}/{name}", K::kind(&()), identity.namespace);
    call(operation, api::<K>(context, identity).get_opt(name)).await
}

/// Deletes a child if it exists and belongs to the job.
pub(super) async fn delete<K: Child>(
    context: &Context,
    identity: &Identity,
    known: &Index<ChildState>,
    name: &str,
) -> Result<(), CallError> {
    let Some(child) = known.get(identity, name) else { return Ok(()) };
    if ownership::find_conflict(&K::kind(&()), name, &child.owner, identity).is_some() {
        return Ok(());
    }
    let only_this = Preconditions { uid: Some(child.uid.clone()), resource_version: None };
    let params = DeleteParams::background().preconditions(only_this);
    let operation = format!("delete {} {}/{name}", K::kind(&()), identity.namespace);
    match call(operation, api::<K>(context, identity).delete(name, &params)).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// Children name the installation that wrote them.
fn field_manager(context: &Context) -> String {
    context.installation.name().to_owned()
}

fn api<K: Child>(context: &Context, identity: &Identity) -> Api<K> {
    Api::namespaced(context.client.clone(), &identity.namespace)
}

pub(super) async fn scale_to_zero(context: &Context, identity: &Identity) -> Result<(), CallError> {
    let api = Api::<StatefulSet>::namespaced(context.client.clone(), &identity.namespace);
    let scale = serde_json::json!({"spec": {"replicas": 0}});
    let params = PatchParams { field_manager: Some(field_manager(context)), ..PatchParams::default() };
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
pub(super) trait Child:
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
