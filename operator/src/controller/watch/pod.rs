//! What the operator reads of a pod. Pure.

use k8s_openapi::{
    api::core::v1::{self, ContainerState},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::Deserialize;

/// A pod. A `Pod` of `k8s-openapi` has all fields, and needs 2 KiB for those without a value: too much for 10,000 pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Resource)]
#[resource(inherit = "v1::Pod")]
#[serde(default)]
pub struct Pod {
    /// Name, UID, owners, and when it was deleted.
    pub metadata: ObjectMeta,
    /// Where it runs.
    pub spec: PodSpec,
    /// Its state.
    pub status: PodStatus,
}

/// Where a pod runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Name of its node; `None` until it is scheduled.
    pub node_name: Option<String>,
}

/// The state of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
    /// When its kubelet accepted it, by the kubelet's clock.
    pub start_time: Option<Time>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Containers.
    pub container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// Type of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason in CamelCase.
    pub reason: Option<String>,
    /// Message for people.
    pub message: Option<String>,
    /// When `status` changed.
    pub last_transition_time: Option<Time>,
}

/// The state of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name of the container.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The image with its digest.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// Whether its readiness probe succeeds.
    pub ready: bool,
    /// Number of restarts.
    pub restart_count: i32,
    /// What it does now.
    pub state: ContainerState,
    /// How it ended before.
    pub last_state: ContainerState,
}

/// Drops the metadata and conditions that the operator does not read.
pub fn trim(pod: Pod) -> Pod {
    let Pod { metadata, spec, mut status } = pod;
    status.conditions.retain(|condition| matches!(condition.type_.as_str(), "PodScheduled" | "Ready"));
    status.conditions.shrink_to_fit();
    let metadata = ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        owner_references: metadata.owner_references,
        deletion_timestamp: metadata.deletion_timestamp,
        finalizers: metadata.finalizers,
        ..ObjectMeta::default()
    };
    Pod { metadata, spec, status }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_a_pod_as_the_api_server_sends_it_and_keeps_it_small() {
        let sent = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "job-0", "namespace": "ns", "uid": "u", "labels": {"a": "b"}, "managedFields": [{}],
                "annotations": {"large": "x"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "trainer", "image": "i"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "hostIP": "10.0.0.2",
                "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
                "containerStatuses": [{"name": "trainer", "image": "i", "imageID": "d", "ready": true, "restartCount": 1,
                    "containerID": "c", "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}, "lastState": {}}]}
        });
        let kept = trim(serde_json::from_value(sent).unwrap());
        let time = |text: &str| Some(Time(text.parse().unwrap()));
        let running = v1::ContainerStateRunning { started_at: time("2026-01-01T00:00:01Z") };
        let trainer = ContainerStatus {
            name: "trainer".into(),
            image: "i".into(),
            image_id: "d".into(),
            ready: true,
            restart_count: 1,
            state: ContainerState { running: Some(running), ..ContainerState::default() },
            last_state: ContainerState::default(),
        };
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        let expected = Pod {
            metadata: ObjectMeta {
                name: Some("job-0".into()),
                namespace: Some("ns".into()),
                uid: Some("u".into()),
                ..ObjectMeta::default()
            },
            spec: PodSpec { node_name: Some("node-1".into()) },
            status: PodStatus {
                phase: Some("Running".into()),
                conditions: vec![ready],
                start_time: time("2026-01-01T00:00:00Z"),
                pod_ip: Some("10.0.0.1".into()),
                init_container_statuses: Vec::new(),
                container_statuses: vec![trainer],
            },
        };
        assert_eq!(kept, expected);
        assert!(size_of::<Pod>() < 700, "{}", size_of::<Pod>());
    }
}
