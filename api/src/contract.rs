//! Names that the operator writes and the trainer reads.

/// UID of the job; checkpoints lie under it.
pub const ENV_JOB_UID: &str = "DATJOB_JOB_UID";
/// UID of the pod.
pub const ENV_POD_UID: &str = "DATJOB_POD_UID";
/// Own address of the pod; collectives bind to it.
pub const ENV_POD_IP: &str = "DATJOB_POD_IP";
/// Index of the pod in its StatefulSet.
pub const ENV_POD_INDEX: &str = "DATJOB_POD_INDEX";
/// Number of pods.
pub const ENV_REPLICAS: &str = "DATJOB_REPLICAS";
/// Worker processes in each pod.
pub const ENV_WORKERS_PER_POD: &str = "DATJOB_WORKERS_PER_POD";
/// GPUs in each pod; absent where training runs on the CPU.
pub const ENV_GPUS: &str = "DATJOB_GPUS";
/// The attempt that the pod belongs to: a token, messages with an older one are dropped.
pub const ENV_ATTEMPT: &str = "DATJOB_ATTEMPT";
/// DNS name of pod 0, the host of the rendezvous.
pub const ENV_RENDEZVOUS_HOST: &str = "DATJOB_RENDEZVOUS_HOST";
/// Where a data image (`data.source.image`) puts its files; set in its init container.
pub const ENV_DATA: &str = "DATJOB_DATA";

/// What a trainer logs, for example `debug`; the one variable of [`ENV_PREFIX`] that `pod.env` may set.
pub const ENV_LOG: &str = "DATJOB_LOG";
/// Environment variables with this prefix are the operator's own; `pod.env` may not set them, but for [`ENV_LOG`].
pub const ENV_PREFIX: &str = "DATJOB_";

/// The credentials of an object store (`data.source.objectStore.secretName`), and the keys of that secret.
pub const ENV_AWS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// Port of the agent: report, metrics, health, and on pod 0 the rendezvous.
pub const AGENT_PORT: u16 = 8080;
/// Name of that port.
pub const AGENT_PORT_NAME: &str = "agent";
/// Port of c10d's store on pod 0.
pub const STORE_PORT: u16 = 29500;

/// Path of the report on the agent's port.
pub const REPORT_PATH: &str = "/v1/report";
/// Most bytes of a report.
pub const REPORT_MAX_BYTES: usize = 64 * 1024;

/// Directory of the mounted training spec.
pub const TRAINING_DIR: &str = "/etc/datjob";
/// File in it: `spec.training` as JSON.
pub const TRAINING_FILE: &str = "training.json";
/// Where the data set is mounted, unpacked or downloaded to.
pub const DATA_DIR: &str = "/data";
/// Below it the claims of files beside the data set are mounted, each in a directory of its own.
pub const FILES_DIR: &str = "/files";
/// Where the checkpoint claim is mounted.
pub const CHECKPOINT_DIR: &str = "/checkpoints";
/// Scratch space of the trainer (its root file system is read-only).
pub const SCRATCH_DIR: &str = "/tmp";
/// Where shared memory is mounted.
pub const SHARED_MEMORY_DIR: &str = "/dev/shm";

/// Name of the trainer's container.
pub const CONTAINER: &str = "trainer";
/// Label on all children: the job's name.
pub const LABEL_JOB_NAME: &str = "datjob.io/job-name";
/// Label on all children: the job's UID.
pub const LABEL_JOB_UID: &str = "datjob.io/job-uid";
/// Annotation on the StatefulSet and its pods: the attempt.
pub const ANNOTATION_ATTEMPT: &str = "datjob.io/attempt";
/// User and group that a trainer runs as where the manifest does not say.
pub const DEFAULT_USER: i64 = 65532;
