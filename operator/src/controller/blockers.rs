//! Finds what keeps pods from running in their states: a missing claim, Secret or image. Pure.
//!
//! The operator needs no permission to read claims or Secrets for this.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, ContainerStateTerminated};
use kube::ResourceExt as _;

use super::{
    observe::pods,
    watch::{ContainerStatus, Pod},
};
use crate::{
    clock::{elapsed, has_lasted},
    text::clause,
};

/// A problem that keeps pods from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Reason of the condition and of the event.
    pub reason: &'static str,
    /// What failed, on what object. Constant while the blocker persists.
    pub summary: String,
    /// Details from the cluster, which may change.
    pub detail: String,
    /// Whether the cluster may solve it, for example by adding a node. Otherwise a person must.
    pub may_pass: bool,
}

impl Blocker {
    /// Creates a blocker with details from the cluster.
    pub fn new(reason: &'static str, summary: impl Into<String>, detail: &str) -> Self {
        Self { reason, summary: summary.into(), detail: clause(detail), may_pass: false }
    }

    /// The message of the condition.
    pub fn message(&self) -> String {
        if self.detail.is_empty() {
            return format!("{}.", self.summary);
        }
        format!("{}: {}.", self.summary, self.detail)
    }

    /// The message, or the message `before` if only that one has details. The kubelet alternates between a message with
    /// the cause and one without it.
    pub fn message_replacing(&self, before: &str) -> String {
        if self.detail.is_empty() && before.starts_with(&self.summary) {
            return before.to_owned();
        }
        self.message()
    }
}

/// A warning event about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarningEvent {
    /// Reason of the event.
    pub reason: String,
    /// Name of the pod, or of the StatefulSet that cannot create pods.
    pub object: String,
    /// Message of the event.
    pub message: String,
}

/// How long a pod may be unschedulable before it counts as blocked, while volumes are bound or nodes are added.
/// By the scheduler's clock.
const SCHEDULING_GRACE: Duration = Duration::from_secs(10);
/// How long a restarted container still counts as crashing. By the kubelet's clock.
const CRASH_WINDOW: Duration = Duration::from_secs(30);

/// How long after its grace period a terminating pod counts as stuck. By the API server's clock, which names the end of that
/// period in advance: if it differs from the operator's, the pod is named as much earlier or later.
const TERMINATION_DELAY: Duration = Duration::from_mins(1);

/// Finds the first blocker in the order of the pods. One that only a person can solve comes first.
pub fn find(pods: &[Arc<Pod>], warning: Option<&WarningEvent>, now: Timestamp) -> Option<Blocker> {
    let of_pod = |pod: &Arc<Pod>| {
        if pod.metadata.deletion_timestamp.is_some() {
            return stuck_termination(pod, now);
        }
        unschedulable(pod, now).or_else(|| container_blocker(pod, now))
    };
    let found: Vec<Blocker> = pods.iter().filter_map(of_pod).chain(warning.map(blocker_from_event)).collect();
    found.iter().find(|blocker| !blocker.may_pass).or(found.first()).cloned()
}

/// A pod that should have terminated long ago, because its node does not answer or a finalizer holds it.
pub fn stuck_termination(pod: &Pod, now: Timestamp) -> Option<Blocker> {
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    if elapsed(end, now) < TERMINATION_DELAY {
        return None;
    }
    let name = pod.name_any();
    let node = pod.spec.node_name.as_deref();
    let summary = format!("Pod {} should have terminated at {end}", pods::name_and_node(pod));
    let finalizers = pod.finalizers();
    let detail = match node {
        _ if !finalizers.is_empty() => format!("its finalizers hold it: {}", finalizers.join(", ")),
        Some(node) => format!(
            "if node {node} is lost, delete its Node object or taint it with node.kubernetes.io/out-of-service; \
             otherwise check its kubelet"
        ),
        None => format!("delete it with `kubectl delete pod {name} --force`"),
    };
    Some(Blocker::new("PodNotTerminated", summary, &detail))
}

fn blocker_from_event(warning: &WarningEvent) -> Blocker {
    let WarningEvent { reason, object, message } = warning;
    match reason.as_str() {
        "FailedCreate" if message.contains("serviceaccount") && message.contains("not found") => {
            let summary = format!(
                "StatefulSet {object} cannot create its pods; create the service account, \
                or correct spec.pod.serviceAccountName"
            );
            Blocker::new("ServiceAccountMissing", summary, message)
        }
        "FailedCreate" => {
            let summary = format!("StatefulSet {object} cannot create its pods");
            Blocker::new("PodsNotCreated", summary, message)
        }
        "FailedCreatePodSandBox" => {
            Blocker::new("PodSandboxNotCreated", format!("Pod {object} cannot start"), message)
        }
        _ => Blocker::new("VolumeNotMounted", format!("Pod {object} cannot start"), message),
    }
}

fn unschedulable(pod: &Pod, now: Timestamp) -> Option<Blocker> {
    let condition = pod.status.conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    let blocked = condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable");
    let since = condition.last_transition_time.as_ref().map_or(now, |time| time.0);
    if !blocked || !has_lasted(since, now, SCHEDULING_GRACE) {
        return None;
    }
    let message = condition.message.as_deref().unwrap_or_default();
    let summary = format!("Pod {} is unschedulable", pod.name_any());
    // The scheduler names a claim that does not exist. Everything else may change with the nodes.
    if message.contains("persistentvolumeclaim") && message.contains("not found") {
        return Some(Blocker::new("VolumeClaimMissing", summary, message));
    }
    Some(Blocker { may_pass: true, ..Blocker::new("WaitingForCapacity", summary, message) })
}

fn container_blocker(pod: &Pod, now: Timestamp) -> Option<Blocker> {
    let init = pod.status.init_container_statuses.iter().map(|container| (container, true));
    init.chain(pod.status.container_statuses.iter().map(|container| (container, false))).find_map(
        |(container, init)| {
            waiting_container(pod, container).or_else(|| crashing_container(pod, container, init, now))
        },
    )
}

fn waiting_container(pod: &Pod, container: &ContainerStatus) -> Option<Blocker> {
    let waiting = container.state.waiting.as_ref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let name = pod.name_any();
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => Some(Blocker::new(
            "ImageNotPulled",
            format!("Pod {name} cannot pull image {:?}", container.image),
            // "Back-off pulling image …" has no cause; newer kubelets append it.
            if message.starts_with("Back-off") {
                message.split_once(": ").map_or("", |(_, cause)| cause)
            } else {
                message
            },
        )),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(Blocker::new(
            "ContainerNotCreated",
            format!("Pod {name} cannot create container {}", container.name),
            message,
        )),
        _ => None,
    }
}

fn crashing_container(pod: &Pod, container: &ContainerStatus, init: bool, now: Timestamp) -> Option<Blocker> {
    let failed = |state: &ContainerState| -> Option<ContainerStateTerminated> {
        state.terminated.clone().filter(|end| end.exit_code != 0)
    };
    let state = &container.state;
    let end = failed(state).or_else(|| failed(&container.last_state))?;
    let backs_off =
        state.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"));
    let is_recent = |running: &ContainerStateRunning| {
        running.started_at.as_ref().is_none_or(|time| !has_lasted(time.0, now, CRASH_WINDOW))
    };
    let restarted_recently =
        state.running.as_ref().is_some_and(|running| !container.ready && is_recent(running));
    // The first exit of an agent is only a restart. The first failure of a data container counts.
    let repeatedly = container.restart_count >= 2;
    if !(backs_off || state.terminated.is_some() && (init || repeatedly) || restarted_recently && repeatedly)
    {
        return None;
    }
    let (what, fails) = if init { ("Data", "failed") } else { ("Trainer", "fails repeatedly") };
    let summary = format!(
        "{what} container {:?} of pod {} (image {:?}) {fails} with exit code {}",
        container.name,
        pod.name_any(),
        container.image,
        end.exit_code
    );
    let detail = end.message.or(end.reason.filter(|reason| reason != "Error")).unwrap_or_default();
    Some(Blocker::new(if init { "DataContainerFailed" } else { "TrainerCrashes" }, summary, &detail))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "job-1"}, "status": status})).unwrap()
    }

    fn trainer(state: &Value, last: &Value, restarts: i32) -> Value {
        json!({"name": "trainer", "image": "img:1", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last})
    }

    fn blocker(status: &Value) -> Option<(&'static str, String)> {
        find(&[Arc::new(pod(status))], None, at("2026-01-01T00:01:00Z"))
            .map(|found| (found.reason, found.message()))
    }

    #[test]
    fn finds_each_kind_of_blocker() {
        let unschedulable = |since: &str| {
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "lastTransitionTime": since, "message": "persistentvolumeclaim \"ckpt\" not found"}]})
        };
        let container = |state: Value| json!({"containerStatuses": [trainer(&state, &json!({}), 0)]});
        let waits = |reason: &str, message: &str| {
            container(json!({"waiting": {"reason": reason, "message": message}}))
        };
        let crash = json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "no such file"}});
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let cases = [
            (
                unschedulable("2026-01-01T00:00:00Z"),
                Some((
                    "VolumeClaimMissing",
                    "Pod job-1 is unschedulable: persistentvolumeclaim \"ckpt\" not found.",
                )),
            ),
            (unschedulable("2026-01-01T00:00:55Z"), None),
            (
                waits("ErrImagePull", "manifest unknown"),
                Some(("ImageNotPulled", "Pod job-1 cannot pull image \"img:1\": manifest unknown.")),
            ),
            (
                waits("ImagePullBackOff", "Back-off pulling image \"img:1\""),
                Some(("ImageNotPulled", "Pod job-1 cannot pull image \"img:1\".")),
            ),
            (
                waits("ImagePullBackOff", "Back-off pulling image \"img:1\": ErrImagePull: not found"),
                Some(("ImageNotPulled", "Pod job-1 cannot pull image \"img:1\": ErrImagePull: not found.")),
            ),
            (
                waits("CreateContainerConfigError", "secret \"s\" not found"),
                Some((
                    "ContainerNotCreated",
                    "Pod job-1 cannot create container trainer: secret \"s\" not found.",
                )),
            ),
            (
                waits(
                    "CreateContainerConfigError",
                    "couldn't find key AWS_ACCESS_KEY_ID in Secret team/keys",
                ),
                Some((
                    "ContainerNotCreated",
                    "Pod job-1 cannot create container trainer: couldn't find key AWS_ACCESS_KEY_ID in Secret \
                     team/keys.",
                )),
            ),
            (waits("ContainerCreating", ""), None),
            (waits("PodInitializing", ""), None),
            (
                json!({"containerStatuses": [trainer(&back_off, &crash, 1)]}),
                Some((
                    "TrainerCrashes",
                    "Trainer container \"trainer\" of pod job-1 (image \"img:1\") fails repeatedly with exit code 3: no such file.",
                )),
            ),
            (
                json!({"containerStatuses": [trainer(&json!({"running": {"startedAt": "2026-01-01T00:00:50Z"}}), &crash, 2)]}),
                Some((
                    "TrainerCrashes",
                    "Trainer container \"trainer\" of pod job-1 (image \"img:1\") fails repeatedly with exit code 3: no such file.",
                )),
            ),
            (
                json!({"containerStatuses": [trainer(&json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), &crash, 2)]}),
                None,
            ),
            (json!({"containerStatuses": [trainer(&crash, &json!({}), 0)]}), None),
            (
                json!({"initContainerStatuses": [trainer(&crash, &json!({}), 0)]}),
                Some((
                    "DataContainerFailed",
                    "Data container \"trainer\" of pod job-1 (image \"img:1\") failed with exit code 3: no such file.",
                )),
            ),
            (json!({}), None),
        ];
        for (status, expected) in cases {
            let expected = expected.map(|(reason, sentence)| (reason, sentence.to_owned()));
            assert_eq!(blocker(&status), expected, "{status}");
        }
    }

    #[test]
    fn warning_events_become_blockers() {
        let now = at("2026-01-01T00:01:00Z");
        for (reason, message, expected) in [
            (
                "FailedMount",
                "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found",
                "VolumeNotMounted",
            ),
            (
                "FailedCreate",
                "create Pod job-0 in StatefulSet job failed error: exceeded quota",
                "PodsNotCreated",
            ),
            (
                "FailedCreate",
                "create Pod job-0 in StatefulSet job failed error: pods \"job-0\" is forbidden: error looking up \
                 service account ns/x: serviceaccount \"x\" not found",
                "ServiceAccountMissing",
            ),
            ("FailedCreatePodSandBox", "failed to set up the network", "PodSandboxNotCreated"),
        ] {
            let warning =
                WarningEvent { reason: reason.into(), object: "job".into(), message: message.into() };
            let found = find(&[], Some(&warning), now).unwrap();
            assert_eq!(found.reason, expected);
            assert!(found.message().contains(message), "{}", found.message());
        }
    }

    #[test]
    fn a_problem_for_a_person_comes_before_a_lack_of_capacity() {
        let waits = |name: &str, message: &str| -> Arc<Pod> {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "message": message});
            Arc::new(
                serde_json::from_value(
                    json!({"metadata": {"name": name}, "status": {"conditions": [condition]}}),
                )
                .unwrap(),
            )
        };
        let pods = [
            waits("job-0", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            waits("job-1", "persistentvolumeclaim \"x\" not found"),
        ];
        let now = at("2026-01-01T00:01:00Z");
        assert_eq!(find(&pods, None, now).unwrap().reason, "VolumeClaimMissing");
        let found = find(&pods[..1], None, now).unwrap();
        assert!(found.reason == "WaitingForCapacity" && found.may_pass, "{found:?}");
    }

    #[test]
    fn a_pod_that_does_not_terminate_is_named_with_its_node() {
        let message = |finalizers: Value, node: Value, now: &str| {
            let metadata = json!({"name": "job-1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers});
            let pod: Pod =
                serde_json::from_value(json!({"metadata": metadata, "spec": {"nodeName": node}})).unwrap();
            find(&[Arc::new(pod)], None, at(now)).map(|found| found.message())
        };
        assert_eq!(message(json!([]), json!("node-7"), "2026-01-01T00:00:59Z"), None);
        let lost = message(json!([]), json!("node-7"), "2026-01-01T00:01:00Z").unwrap();
        let expected =
            "Pod job-1 on node node-7 should have terminated at 2026-01-01T00:00:00Z: if node node-7 is lost";
        assert!(lost.starts_with(expected), "{lost}");
        let held = message(json!(["example.com/held"]), json!("node-7"), "2026-01-01T00:01:00Z").unwrap();
        assert!(held.ends_with("its finalizers hold it: example.com/held."), "{held}");
        let unbound = message(json!([]), Value::Null, "2026-01-01T00:01:00Z").unwrap();
        assert!(unbound.contains("kubectl delete pod job-1 --force"), "{unbound}");
    }

    #[test]
    fn keeps_a_message_with_details() {
        let summary = "Pod job-1 cannot pull image \"img:1\"";
        let with = Blocker::new("ImageNotPulled", summary, "manifest unknown");
        let without = Blocker::new("ImageNotPulled", summary, "");
        assert_eq!(without.message_replacing(&with.message()), with.message());
        assert_eq!(without.message_replacing("Something else."), without.message());
    }

    #[test]
    fn ignores_terminating_pods() {
        let mut pod = pod(
            &json!({"containerStatuses": [trainer(&json!({"waiting": {"reason": "ErrImagePull"}}), &json!({}), 0)]}),
        );
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-01-01T00:00:00Z")));
        assert_eq!(find(&[Arc::new(pod)], None, at("2026-01-01T00:00:30Z")), None);
    }
}
