//! `spec.pod`: options of the trainer pods.

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

mod schema;

/// Options of the trainer pods. Each field has the meaning of the pod's or container's field of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodOptions {
    /// Image of the trainer container. Defaults to the trainer image of the operator's release; for pods with GPUs, to
    /// its CUDA image if that is configured.
    #[schemars(length(max = 1024))]
    pub image: String,
    /// Image pull policy: Always, IfNotPresent or Never. Defaults to Always for the tag latest, otherwise IfNotPresent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pull_policy")]
    pub image_pull_policy: Option<String>,
    /// Secrets with the credentials for pulling images, at most 16.
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Compute resources of the trainer container: CPU, memory, GPUs.
    pub resources: ResourceRequirements,
    /// Labels that a node must have to run the pods.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods, at most 64. By default, pods tolerate not-ready and unreachable nodes for 30 seconds.
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Scheduling constraints: node affinity, pod affinity and pod anti-affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Constraints on the spread of the pods across zones and nodes, at most 16.
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Name of the RuntimeClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Name of the scheduler that assigns the pods to nodes. Defaults to default-scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Name of the ServiceAccount of the pods. Its token is never mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Environment variables of the trainer container, at most 128, with distinct names. Names that start with `DATJOB_`
    /// are reserved, except `DATJOB_LOG`, which sets the log level. `OMP_NUM_THREADS` sets the CPU threads of a worker;
    /// by default the workers of a pod share the cores of its CPU limit.
    #[schemars(length(max = 128), extend("x-kubernetes-validations" = [schema::env_names()]))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// Additional volumes of the pods, at most 32, with distinct names.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
    /// Mounts of `volumes` in the trainer container, at most 32, with distinct paths.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Additional labels of the pods, at most 64. Keys under `datjob.io`, `app.kubernetes.io`, `apps.kubernetes.io` and
    /// `statefulset.kubernetes.io`, and the key `controller-revision-hash`, are reserved.
    #[schemars(extend("maxProperties" = 64, "x-kubernetes-validations" = [schema::label_keys()]))]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations of the pods, at most 64. Keys under `datjob.io` are reserved.
    #[schemars(extend("maxProperties" = 64, "x-kubernetes-validations" = [schema::annotation_keys()]))]
    pub annotations: BTreeMap<String, String>,
    /// Size limit of `/dev/shm`, for example 8Gi. Defaults to the limit of the container runtime, usually 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Quantity>,
    /// Seconds between SIGTERM and SIGKILL, from 1 to 86400. Defaults to 120.
    #[schemars(range(min = 1, max = 86_400))]
    pub termination_grace_period_seconds: i64,
    /// User ID and group ID of the trainer process. It must not be root (0). Defaults to 65532.
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub run_as_user: i64,
    /// ID of the group that owns the mounted volumes, so that a non-root trainer can write to them. Defaults to 65532.
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub fs_group: i64,
}

impl PodOptions {
    /// The requested GPUs by resource: `nvidia.com/gpu`, `nvidia.com/gpu.shared` and MIG devices.
    pub fn gpu_resources(&self) -> impl Iterator<Item = (&str, &str)> {
        let limits = self.resources.limits.iter().flatten();
        limits
            .map(|(name, quantity)| (name.as_str(), quantity.0.as_str()))
            .filter(|(name, _)| Self::is_gpu(name))
    }

    /// Whether the resource is a GPU, a shared GPU or a MIG device.
    pub fn is_gpu(resource: &str) -> bool {
        resource
            .strip_prefix("nvidia.com/")
            .is_some_and(|device| device == "gpu" || device == "gpu.shared" || device.starts_with("mig-"))
    }

    /// Number of requested GPUs; 0 for training on the CPU.
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

/// Volume that the pods can mount. hostPath is not supported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = schema::volume()))]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name of the volume, referenced by `volumeMounts`. Names that start with `datjob-` are reserved.
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = schema::volume_name()))]
    pub name: String,
    /// PersistentVolumeClaim in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimReference>,
    /// ConfigMap in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectName>,
    /// Secret in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// Empty directory with the lifetime of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
}

/// Reference to an object in the job's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Reference to a Secret in the job's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}
