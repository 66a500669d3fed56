//! The pods of a job and their states.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

use datjob_api::contract;
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    calls::{CallError, call},
    controller::{
        Context,
        identity::Identity,
        watch::{ContainerStatus, Pod},
    },
};

/// The pods of a job, sorted by ordinal.
pub(super) fn of_job(context: &Context, identity: &Identity) -> Vec<Arc<Pod>> {
    let mut pods: Vec<_> = context.children.pods.of_job(identity).into_values().collect();
    pods.sort_by_key(|pod| ordinal(&pod.name_any()));
    pods
}

/// Whether the API server has pods of a job. The watch may be late; a new attempt must not start beside old pods.
pub async fn exist(context: &Context, identity: &Identity) -> Result<bool, CallError> {
    let api = Api::<Pod>::namespaced(context.client.clone(), &identity.namespace);
    let params =
        ListParams::default().labels(&format!("{}={}", contract::LABEL_JOB_UID, identity.uid)).limit(1);
    let operation = format!("list the pods of {}/{}", identity.namespace, identity.name);
    Ok(!call(operation, api.list_metadata(&params)).await?.items.is_empty())
}

fn ordinal(name: &str) -> u32 {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// Whether the StatefulSet with this UID controls the pod.
pub(super) fn is_owned_by(pod: &Pod, set_uid: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == set_uid && owner.controller == Some(true))
}

/// Whether the pod has the condition Ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The trainer container of a pod that has started it.
pub fn trainer(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.container_statuses.iter().find(|container| container.name == contract::CONTAINER)
}

/// Whether the trainer container of a pod runs.
pub fn is_running(pod: &Pod) -> bool {
    trainer(pod).is_some_and(|trainer| trainer.state.running.is_some())
}

/// Number of pods whose trainer runs.
pub fn count_running(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|pod| is_running(pod)).count()
}

/// A hash of what changes when a pod of a job fails, is replaced or becomes ready.
pub(super) fn hash_states(pods: &[Arc<Pod>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for pod in pods {
        (pod.uid(), is_ready(pod), trainer(pod).map(|trainer| trainer.restart_count)).hash(&mut hasher);
    }
    hasher.finish()
}

/// The name of a pod, and its node if it has one: `job-1 on node node-7`.
pub fn name_and_node(pod: &Pod) -> String {
    let node = pod.spec.node_name.as_deref();
    format!("{}{}", pod.name_any(), node.map_or(String::new(), |node| format!(" on node {node}")))
}

/// The address of a pod whose trainer runs.
pub(super) fn running_address(pod: &Pod) -> Option<IpAddr> {
    pod.status.pod_ip.as_ref().filter(|_| is_running(pod))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn recognizes_pods_of_the_stateful_set() {
        let owned = |uid: &str, controller: bool| {
            is_owned_by(
                &pod(json!({"metadata": {"name": "job-0", "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "job", "uid": uid, "controller": controller}
                ]}})),
                "set",
            )
        };
        assert!(owned("set", true) && !owned("other", true) && !owned("set", false));
    }

    #[test]
    fn a_pod_has_an_address_only_while_it_runs() {
        let address = |state: serde_json::Value| {
            running_address(&pod(json!({"status": {"podIP": "10.0.0.7", "containerStatuses": [
                {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}
            ]}})))
        };
        assert_eq!(
            address(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})),
            Some([10, 0, 0, 7].into())
        );
        assert_eq!(address(json!({"waiting": {"reason": "CrashLoopBackOff"}})), None);
    }

    #[test]
    fn the_hash_changes_when_a_pod_fails_is_replaced_or_becomes_ready() {
        let hash = |uid: &str, ready: &str, restarts: i32, phase: &str| {
            hash_states(&[
                Arc::default(),
                Arc::new(pod(json!({
                    "metadata": {"name": "job-1", "uid": uid},
                    "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
                        {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": restarts}
                    ]}
                }))),
            ])
        };
        let before = hash("a", "True", 0, "Running");
        assert_eq!(before, hash("a", "True", 0, "Pending"));
        for after in [
            hash("a", "True", 1, "Running"),
            hash("b", "True", 0, "Running"),
            hash("a", "False", 0, "Running"),
        ] {
            assert_ne!(before, after);
        }
    }

    #[test]
    fn sorts_pods_by_ordinal() {
        let mut names = vec!["job-10", "job-2", "job-0"];
        names.sort_by_key(|name| ordinal(name));
        assert_eq!(names, ["job-0", "job-2", "job-10"]);
    }
}
