//! What the operator keeps of the objects that it watches. Pure.

use datjob_api::contract;
use k8s_openapi::{api::apps::v1::StatefulSet, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, ResourceExt as _};

use super::index::Entry;
use crate::controller::{identity::Identity, ownership::Owner};

/// Annotation with a hash of an object that the operator wrote.
pub const ANNOTATION_HASH: &str = "datjob.io/applied-hash";

/// A child other than the StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildState {
    /// Its UID.
    pub uid: String,
    /// Its owner.
    pub owner: Owner,
    /// The hash in its annotation.
    pub hash: Option<String>,
}

/// The StatefulSet of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSetState {
    /// Its owner.
    pub owner: Owner,
    /// Its UID.
    pub uid: String,
    /// The attempt in its annotation.
    pub attempt: u32,
    /// Desired number of pods.
    pub replicas: i32,
    /// Number of pods that its controller has created; `None` until it has seen this version.
    pub created: Option<i32>,
    /// Number of ready pods.
    pub ready: i32,
}

/// Assigns an object to the job in its labels; `None` without these labels.
pub fn entry<K: Resource, T>(object: K, convert: impl FnOnce(K) -> T) -> Option<Entry<T>> {
    let label = |key: &str| object.labels().get(key).cloned();
    let job = Identity {
        name: label(contract::LABEL_JOB_NAME)?,
        namespace: object.namespace()?,
        uid: label(contract::LABEL_JOB_UID)?,
    };
    Some(Entry { job, name: object.name_any(), object: convert(object) })
}

/// Keeps of a child what decides whether it is the job's and up to date.
pub fn child(metadata: &ObjectMeta) -> ChildState {
    let hash = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_HASH));
    ChildState {
        uid: metadata.uid.clone().unwrap_or_default(),
        owner: Owner::of(metadata),
        hash: hash.cloned(),
    }
}

impl StatefulSetState {
    /// Whether its controller tried to create all pods and could not.
    pub fn lacks_pods(&self) -> bool {
        self.created.is_some_and(|created| created < self.replicas)
    }
}

/// Keeps the numbers of a StatefulSet.
pub fn stateful_set(set: &StatefulSet) -> StatefulSetState {
    let status = set.status.as_ref();
    // The API server sets a status without an observed generation before the controller runs.
    let observed = status.filter(|status| status.observed_generation >= set.metadata.generation);
    let annotation = set.annotations().get(contract::ANNOTATION_ATTEMPT);
    StatefulSetState {
        owner: Owner::of(&set.metadata),
        uid: set.uid().unwrap_or_default(),
        attempt: annotation.and_then(|attempt| attempt.parse().ok()).unwrap_or_default(),
        replicas: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default(),
        created: observed.map(|status| status.replicas),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::watch::Pod;

    #[test]
    fn labels_assign_an_object_to_its_job() {
        let pod = |labels: serde_json::Value| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": "job-0", "namespace": "ns", "labels": labels}}),
            )
            .unwrap()
        };
        let labels = json!({contract::LABEL_JOB_NAME: "job", contract::LABEL_JOB_UID: "uid"});
        let found = entry(pod(labels), |_| ()).unwrap();
        assert_eq!(
            (found.job.name.as_str(), found.job.uid.as_str(), found.name.as_str()),
            ("job", "uid", "job-0")
        );
        assert_eq!(entry(pod(json!({contract::LABEL_JOB_NAME: "job"})), |_| ()), None);
    }

    #[test]
    fn pods_are_lacking_only_after_the_controller_of_stateful_sets_has_run() {
        let lacks_pods = |status: serde_json::Value| {
            let set = json!({"metadata": {"generation": 2}, "spec": {
                "replicas": 2, "serviceName": "s", "selector": {}, "template": {}
            }, "status": status});
            stateful_set(&serde_json::from_value(set).unwrap()).lacks_pods()
        };
        assert!(!lacks_pods(json!({"replicas": 0})));
        assert!(!lacks_pods(json!({"replicas": 0, "observedGeneration": 1})));
        assert!(lacks_pods(json!({"replicas": 1, "observedGeneration": 2})));
        assert!(!lacks_pods(json!({"replicas": 2, "observedGeneration": 2})));
    }
}
