//! The custom resource DatJob.
#![expect(clippy::duplicated_attributes, reason = "each printcolumn has a name, a type and a path")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    definition::{MAX_NAME_LENGTH, definition},
    network::{Egress, NetworkPolicy},
    pod::{ObjectName, PodOptions, SecretName, Volume},
    status::{DatJobStatus, Restarts, ResultsStatus, TestAttack, TestCount},
};
use crate::training::{ClaimReference, Topology, Training};

mod definition;
mod network;
mod pod;
mod status;

/// API group of the custom resource.
pub const GROUP: &str = "datjob.io";

/// Distributed adversarial training of one network: what to train, on how many pods, and where checkpoints go.
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
    printcolumn(name = "Epoch", type_ = "string", json_path = ".status.epoch"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers"),
    printcolumn(name = "Clean", type_ = "string", json_path = ".status.clean"),
    printcolumn(name = "Robust", type_ = "string", json_path = ".status.robust"),
    printcolumn(name = "Restarts", type_ = "integer", json_path = ".status.restarts.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    doc = "A DatJob trains one network adversarially on several pods and reports its clean and robust accuracy."
)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.replicas == oldSelf.replicas",
        "message": "spec.replicas cannot change after creation",
        "fieldPath": ".replicas"
    },
    {
        "rule": "self.pod == oldSelf.pod",
        "message": "spec.pod cannot change after creation",
        "fieldPath": ".pod"
    },
    {
        "rule": "self.checkpoints == oldSelf.checkpoints",
        "message": "spec.checkpoints never changes: the job's state lies there",
        "fieldPath": ".checkpoints"
    },
    {
        "rule": "has(self.workersPerPod) == has(oldSelf.workersPerPod) && (!has(self.workersPerPod) || self.workersPerPod == oldSelf.workersPerPod)",
        "message": "spec.workersPerPod never changes"
    },
    {
        "rule": "self.training.schedule.batchSize >= self.replicas * (has(self.workersPerPod) ? self.workersPerPod : 1)",
        "message": "spec.training.schedule.batchSize is less than the world size (replicas × workersPerPod): each rank needs an image in every step",
        "fieldPath": ".training.schedule.batchSize"
    }
]))]
#[serde(rename_all = "camelCase")]
pub struct DatJobSpec {
    /// Number of trainer pods. World size = replicas × workersPerPod.
    #[schemars(range(min = 1, max = 4096))]
    pub replicas: u32,
    /// Worker processes in each pod; where absent the number of its GPUs, or 1 on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub workers_per_pod: Option<u32>,
    /// When the job gives up.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// What the trainer pods need.
    #[serde(default)]
    pub pod: PodOptions,
    /// Where checkpoints, the best weights and the results are kept, in a directory named by the job's UID.
    pub checkpoints: Checkpoints,
    /// Who the trainer pods may talk to.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// What is trained and how. Never changes.
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

/// When the job gives up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// The job fails at the restart after so many: each world that had to form again counts once, and so does each try
    /// after a missed startup deadline.
    #[schemars(range(min = 0, max = 10_000))]
    pub max_restarts: u32,
    /// If the world has not formed for so long, the pods are given back (scaled to 0) and tried again later.
    #[schemars(range(min = 10, max = 604_800))]
    pub startup_deadline_seconds: u32,
    /// The job fails when it has run for so long, counted from the first start of its pods; no limit where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<u32>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { max_restarts: 6, startup_deadline_seconds: 1800, active_deadline_seconds: None }
    }
}

/// Where checkpoints, the best weights and the results are kept. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Checkpoints {
    /// A volume; with pods on more than one node it must be ReadWriteMany.
    PersistentVolumeClaim(ClaimReference),
}
