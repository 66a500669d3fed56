use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, EmptyDirVolumeSource, EnvVar, LocalObjectReference, ResourceRequirements, Toleration,
        TopologySpreadConstraint, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{contract, training::ClaimReference};

/// What a platform team needs of a pod, field by field; each means what the field of the same name of a pod means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodOptions {
    /// The trainer's image; the one of the operator's release where empty.
    #[schemars(length(max = 1024))]
    pub image: String,
    /// When the image is pulled: Always, IfNotPresent or Never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Secrets with which images are pulled.
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// CPU, memory and devices of the trainer's container.
    pub resources: ResourceRequirements,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates.
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Where the pod may or should run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods spread over zones and nodes.
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The pods' PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// The pods' RuntimeClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// The scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// The pods' service account; its token is never mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Environment variables of the trainer's container; none that begins with `DATJOB_` but `DATJOB_LOG`, the
    /// level of the log.
    #[schemars(length(max = 128))]
    pub env: Vec<EnvVar>,
    /// Volumes beyond those of the data and the checkpoints.
    #[schemars(length(max = 32))]
    pub volumes: Vec<Volume>,
    /// Where the trainer's container mounts them.
    #[schemars(length(max = 32))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Labels of the pods; none under `datjob.io`, `app.kubernetes.io` or `apps.kubernetes.io`.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods; none under `datjob.io`.
    pub annotations: BTreeMap<String, String>,
    /// Size limit of `/dev/shm`; the container runtime's (64 MiB as a rule) where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Quantity>,
    /// Seconds between SIGTERM and SIGKILL.
    #[schemars(range(min = 1, max = 86_400))]
    pub termination_grace_period_seconds: i64,
    /// The user (and group) that the trainer runs as; not root.
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub run_as_user: i64,
    /// The group that owns the mounted volumes: without it a trainer that is not root cannot write to most.
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub fs_group: i64,
}

impl PodOptions {
    /// The GPUs that the trainer's container asks for, by resource: `nvidia.com/gpu`, its shared form, and MIG devices.
    pub fn gpu_resources(&self) -> impl Iterator<Item = (&str, &str)> {
        let limits = self.resources.limits.iter().flatten();
        limits
            .map(|(name, quantity)| (name.as_str(), quantity.0.as_str()))
            .filter(|(name, _)| Self::is_gpu(name))
    }

    /// Whether a resource of that name is a GPU, or a part of one that counts as such.
    pub fn is_gpu(resource: &str) -> bool {
        resource
            .strip_prefix("nvidia.com/")
            .is_some_and(|device| device == "gpu" || device == "gpu.shared" || device.starts_with("mig-"))
    }

    /// How many GPUs the trainer's container asks for; 0 for training on the CPU.
    pub fn gpus(&self) -> u32 {
        self.gpu_resources().filter_map(|(_, quantity)| quantity.parse::<u32>().ok()).sum()
    }
}

impl Default for PodOptions {
    fn default() -> Self {
        Self {
            image: String::new(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            resources: ResourceRequirements::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            priority_class_name: None,
            runtime_class_name: None,
            scheduler_name: None,
            service_account_name: None,
            env: Vec::new(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            shared_memory: None,
            termination_grace_period_seconds: 120,
            run_as_user: contract::DEFAULT_USER,
            fs_group: contract::DEFAULT_USER,
        }
    }
}

/// A volume of a kind that a trainer may mount; no hostPath.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret), has(self.emptyDir)].filter(x, x).size() == 1",
    "message": "a volume is exactly one of persistentVolumeClaim, configMap, secret and emptyDir"
}]))]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name, for `volumeMounts`; none that begins with `datjob-`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A claim in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimReference>,
    /// A ConfigMap in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectName>,
    /// A Secret in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// An empty directory that goes with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
}

/// An object of the job's namespace by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Secret of the job's namespace by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}
