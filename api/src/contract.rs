//! Environment variables, ports, paths and labels that the operator sets and the trainer reads.

/// UID of the job, and name of its directory of checkpoints.
pub const ENV_JOB_UID: &str = "DATJOB_JOB_UID";
/// UID of the pod.
pub const ENV_POD_UID: &str = "DATJOB_POD_UID";
/// Address of the pod. Collectives bind to it.
pub const ENV_POD_IP: &str = "DATJOB_POD_IP";
/// Index of the pod in its StatefulSet.
pub const ENV_POD_INDEX: &str = "DATJOB_POD_INDEX";
/// Number of pods.
pub const ENV_REPLICAS: &str = "DATJOB_REPLICAS";
/// Worker processes in each pod.
pub const ENV_WORKERS_PER_POD: &str = "DATJOB_WORKERS_PER_POD";
/// GPUs in each pod; absent for training on the CPU.
pub const ENV_GPUS: &str = "DATJOB_GPUS";
/// Attempt of the pod. Messages from older attempts are dropped.
pub const ENV_ATTEMPT: &str = "DATJOB_ATTEMPT";
/// Random secret of the attempt, 64 hexadecimal digits, with which heartbeats of its pods are authenticated. Absent in attempts
/// that an operator of release 0.1.0 started.
pub const ENV_TOKEN: &str = "DATJOB_TOKEN";
/// DNS name of pod 0, the host of the rendezvous.
pub const ENV_RENDEZVOUS_HOST: &str = "DATJOB_RENDEZVOUS_HOST";
/// Directory for the files of a data image (`data.source.image`), set in its init container.
pub const ENV_DATA: &str = "DATJOB_DATA";

/// Log filter of the trainer, for example `debug`. The only variable with [`ENV_PREFIX`] that `pod.env` may set.
pub const ENV_LOG: &str = "DATJOB_LOG";
/// Reserved prefix of environment variables: `pod.env` may only set [`ENV_LOG`].
pub const ENV_PREFIX: &str = "DATJOB_";

/// Domains whose label keys are reserved for the operator and Kubernetes, also below subdomains. The first one is the
/// operator's: its annotation keys are reserved, too.
pub const RESERVED_DOMAINS: [&str; 4] =
    ["datjob.io", "app.kubernetes.io", "apps.kubernetes.io", "statefulset.kubernetes.io"];
/// A reserved label without a domain.
pub const RESERVED_LABEL: &str = "controller-revision-hash";

/// Credentials of an object store, and their keys in the Secret `data.source.objectStore.secretName`.
pub const ENV_AWS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// Port of the agent for report, metrics, health and, in pod 0, the rendezvous.
pub const AGENT_PORT: u16 = 8080;
/// Name of that port.
pub const AGENT_PORT_NAME: &str = "agent";
/// Port of c10d's store on pod 0.
pub const STORE_PORT: u16 = 29500;

/// Path of the report on the agent's port.
pub const REPORT_PATH: &str = "/v1/report";
/// Maximum size of a report.
pub const REPORT_MAX_BYTES: usize = 64 * 1024;

/// Directory of the mounted training spec.
pub const TRAINING_DIR: &str = "/etc/datjob";
/// File in it: `spec.training` as JSON.
pub const TRAINING_FILE: &str = "training.json";
/// Directory of the data set, whether mounted, unpacked or downloaded.
pub const DATA_DIR: &str = "/data";
/// Parent directory of the mounted claims of additional files, each in a separate directory.
pub const FILES_DIR: &str = "/files";
/// Mount path of the checkpoint claim.
pub const CHECKPOINT_DIR: &str = "/checkpoints";
/// Scratch space of the trainer, whose root file system is read-only.
pub const SCRATCH_DIR: &str = "/tmp";
/// Mount path of shared memory.
pub const SHARED_MEMORY_DIR: &str = "/dev/shm";

/// Name of the trainer's container.
pub const CONTAINER: &str = "trainer";
/// Label on all children: the job's name.
pub const LABEL_JOB_NAME: &str = "datjob.io/job-name";
/// Label on all children: the job's UID.
pub const LABEL_JOB_UID: &str = "datjob.io/job-uid";
/// Annotation on the StatefulSet and its pods: the attempt.
pub const ANNOTATION_ATTEMPT: &str = "datjob.io/attempt";
/// Default user and group of the trainer.
pub const DEFAULT_USER: i64 = 65532;
