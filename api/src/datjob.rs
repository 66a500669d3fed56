//! The custom resource DatJob.
#![expect(clippy::duplicated_attributes, reason = "each printcolumn has a name, a type and a path")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    definition::{MAX_NAME_LENGTH, definition},
    network::{Egress, NetworkPolicy},
    pod::{ObjectName, PodOptions, SecretName, Volume},
    status::{DatJobStatus, Restarts, ResultsStatus, TestAttack, TestCount, World},
};
use crate::{
    patterns,
    training::{ClaimReference, Topology, Training},
};

mod definition;
mod lenient;
mod network;
mod pod;
mod status;

/// API group of the custom resource.
pub const GROUP: &str = "datjob.io";

/// Desired state of the job: what to train, on how many pods, and where to store checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "datjob.io",
    version = "v1alpha1",
    kind = "DatJob",
    plural = "datjobs",
    shortname = "dj",
    category = "all",
    namespaced,
    status = "DatJobStatus",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Epoch", type_ = "string", json_path = ".status.epoch"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers"),
    printcolumn(name = "Clean", type_ = "string", json_path = ".status.clean"),
    printcolumn(name = "Robust", type_ = "string", json_path = ".status.robust"),
    printcolumn(name = "Split", type_ = "string", json_path = ".status.split"),
    printcolumn(name = "Restarts", type_ = "integer", json_path = ".status.restarts.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Managed by", type_ = "string", json_path = ".status.managedBy", priority = 1),
    doc = "A DatJob trains one network adversarially on several pods and reports its clean and robust accuracy."
)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.replicas == oldSelf.replicas",
        "message": "spec.replicas is immutable; create a new DatJob to change it",
        "fieldPath": ".replicas"
    },
    {
        "rule": "self.pod == oldSelf.pod",
        "message": "spec.pod is immutable; create a new DatJob to change it",
        "fieldPath": ".pod"
    },
    {
        "rule": "self.checkpoints == oldSelf.checkpoints",
        "message": "spec.checkpoints is immutable, because the volume contains the job's state; create a new DatJob to change it",
        "fieldPath": ".checkpoints"
    },
    {
        "rule": "has(self.workersPerPod) == has(oldSelf.workersPerPod) && (!has(self.workersPerPod) || self.workersPerPod == oldSelf.workersPerPod)",
        "message": "spec.workersPerPod is immutable; create a new DatJob to change it"
    },
    {
        "rule": "has(self.managedBy) == has(oldSelf.managedBy) && (!has(self.managedBy) || self.managedBy == oldSelf.managedBy)",
        "message": "spec.managedBy is immutable; to hand over a job without it, change status.managedBy"
    },
    {
        "rule": "self.training.schedule.batchSize >= self.replicas * (has(self.workersPerPod) ? self.workersPerPod : 1)",
        "message": "spec.training.schedule.batchSize must be at least the world size (replicas × workersPerPod), because each \
            rank needs an image in every step",
        "fieldPath": ".training.schedule.batchSize"
    }
]))]
#[serde(rename_all = "camelCase")]
pub struct DatJobSpec {
    /// Installation of the operator that manages the job, as NAMESPACE/NAME, or the name of another controller. All other
    /// installations leave the job alone. If absent, the first one that finds the job manages it. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 63),
        extend("x-kubernetes-validations" = patterns::matches([
            r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._/A-Za-z0-9]*[A-Za-z0-9])?$",
            "expected NAMESPACE/NAME of an installation, for example datjob-system/datjob-operator, or DOMAIN/NAME of another \
             controller",
        ]))
    )]
    pub managed_by: Option<String>,
    /// Number of trainer pods, from 1 to 4096. The world size is replicas × workersPerPod. Immutable.
    #[schemars(range(min = 1, max = 4096))]
    pub replicas: u32,
    /// Number of worker processes per pod, from 1 to 64. Defaults to the number of GPUs per pod, or 1 without GPUs.
    /// Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub workers_per_pod: Option<u32>,
    /// Limits on restarts and run time.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Options of the trainer pods: image, resources, scheduling, volumes, security. Immutable.
    #[serde(default)]
    pub pod: PodOptions,
    /// Volume for checkpoints, the best weights and the results. They are in a directory named by the job's UID.
    /// Immutable.
    pub checkpoints: Checkpoints,
    /// Network access of the trainer pods. If enabled, a NetworkPolicy lets the pods reach each other, DNS (port 53)
    /// and the destinations in `egress`. It admits connections from the job's pods and, at the agent's port, from the
    /// operator's namespace. Policies are additive: to admit a metrics scraper, create another policy that selects the
    /// label `app.kubernetes.io/name: datjob-trainer`.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// What to train and how. Immutable.
    pub training: Training,
}

impl DatJobSpec {
    /// Pods, workers and GPUs, with the defaults filled in.
    pub fn topology(&self) -> Topology {
        let gpus = self.pod.gpus();
        let workers = self.workers_per_pod.unwrap_or(gpus.max(1));
        Topology { pods: self.replicas, workers, gpus }
    }
}

/// Limits on restarts and run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// Maximum number of failures without progress, from 0 to 10000; one more fails the job. Defaults to 6. The count starts
    /// anew after a completed epoch or an hour of training. Deleted, evicted and preempted pods, lost nodes and waiting for
    /// capacity do not count.
    #[schemars(range(min = 0, max = 10_000))]
    pub max_restarts: u32,
    /// Number of seconds that pods may hold resources while others do not run or do not join, from 10 to 604800. Defaults
    /// to 1800. After that, the operator scales the pods to 0 and starts a new attempt 10 to 60 seconds later. Progress
    /// in downloading or unpacking data extends it.
    #[schemars(range(min = 10, max = 604_800))]
    pub startup_deadline_seconds: u32,
    /// Maximum run time of the job in seconds, from 1 to 31536000, counted from `status.startTime`. A job that exceeds it
    /// fails. No limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<u32>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { max_restarts: 6, startup_deadline_seconds: 1800, active_deadline_seconds: None }
    }
}

/// Volume for checkpoints, the best weights and the results. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Checkpoints {
    /// PersistentVolumeClaim to mount. It must be ReadWriteMany if the pods run on more than one node.
    PersistentVolumeClaim(ClaimReference),
}
