//! Stage 2: is the spec one that can be run? Pure, and about the spec alone: what only the cluster can tell (a claim
//! that is not there, an image that cannot be pulled) is read from the pods.

use std::collections::BTreeSet;

use datjob_api::{
    contract,
    datjob::{DatJob, PodOptions, Volume},
    training::{FileSource, InvalidTraining, ObjectStoreSource, Source, Topology},
};
use k8s_openapi::api::core::v1::VolumeMount;
use kube::Resource as _;

use super::identity::Identity;
use crate::conditions;

/// What is to be done with a job.
#[derive(Debug)]
pub enum Validated<'a> {
    /// Run it.
    Run(ValidJob<'a>),
    /// It ended; the end is latched for its UID, whatever is edited later.
    Finished,
    /// It cannot be run: nothing is created.
    Invalid(InvalidSpec),
}

/// A job whose spec can be run.
#[derive(Debug)]
pub struct ValidJob<'a> {
    /// The job.
    pub job: &'a DatJob,
    /// Its names.
    pub identity: &'a Identity,
    /// The ports that pods fetch data and files from.
    pub source_ports: BTreeSet<u16>,
}

/// A spec that cannot be run: the field, what is wrong with it, and what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSpec {
    /// The training spec has a problem.
    #[error(transparent)]
    Training(#[from] InvalidTraining),
    /// The URL cannot be parsed.
    #[error("spec.training.{field}.http.url: {url:?} is no URL; write for example https://host/data.tar.gz")]
    Url {
        /// The field below `spec.training` that has it.
        field: &'static str,
        /// The URL.
        url: String,
    },
    /// The endpoint cannot be parsed.
    #[error(
        "spec.training.data.source.objectStore.endpoint: {endpoint:?} is no URL; write for example \
         https://minio.example.com:9000"
    )]
    Endpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// A variable is the one of the secret.
    #[error(
        "spec.pod.env: {name} is taken from the secret of spec.training.data.source.objectStore; leave one of them out"
    )]
    SecretVariable {
        /// The variable.
        name: String,
    },
    /// The directory leaves the volume.
    #[error(
        "spec.training.data.source.volume.path: {path:?} must be a path below the volume's root, without a leading \"/\" and without \"..\""
    )]
    Path {
        /// The path.
        path: String,
    },
    /// A GPU was asked for where none may be used.
    #[error(
        "spec.pod.resources: asks for {resource}, but GPUs are off in this installation; leave it out, or have the operator \
         installed with gpu.enabled=true"
    )]
    GpusOff {
        /// The resource.
        resource: String,
    },
    /// A number of GPUs that is none.
    #[error(
        "spec.pod.resources.limits: {resource} is {quantity:?}; write a whole number, and write it in limits"
    )]
    Gpus {
        /// The resource.
        resource: String,
        /// What was written.
        quantity: String,
    },
    /// GPUs that nobody would use.
    #[error(
        "spec.workersPerPod: {workers} workers leave some of the {gpus} GPUs of each pod idle; leave it out, or ask for \
         fewer GPUs"
    )]
    IdleGpus {
        /// Workers in each pod.
        workers: u32,
        /// GPUs in each pod.
        gpus: u32,
    },
    /// The pull policy is unknown.
    #[error("spec.pod.imagePullPolicy: {policy:?} is none of Always, IfNotPresent and Never")]
    PullPolicy {
        /// What was written.
        policy: String,
    },
    /// A variable is the operator's own.
    #[error(
        "spec.pod.env: {name} begins with {}, which the operator keeps for itself; choose another name",
        contract::ENV_PREFIX
    )]
    ReservedVariable {
        /// The variable.
        name: String,
    },
    /// Something is there twice.
    #[error("{field}: {name:?} is there twice; names must differ")]
    Duplicate {
        /// The list.
        field: &'static str,
        /// What is there twice.
        name: String,
    },
    /// A label or annotation is the operator's or Kubernetes' own.
    #[error(
        "{field}: {key} lies under a prefix that the operator or Kubernetes keeps for itself; choose another key"
    )]
    ReservedKey {
        /// The map.
        field: &'static str,
        /// The key.
        key: String,
    },
    /// A volume's name is the operator's own.
    #[error(
        "spec.pod.volumes: {name:?} begins with {VOLUME_PREFIX}, which the operator keeps for itself; choose another name"
    )]
    ReservedVolume {
        /// The volume.
        name: String,
    },
    /// A volume has no source, or several.
    #[error(
        "spec.pod.volumes: {name:?} must be exactly one of persistentVolumeClaim, configMap, secret and emptyDir"
    )]
    VolumeSource {
        /// The volume.
        name: String,
    },
    /// A mount names no volume of `pod.volumes`.
    #[error("spec.pod.volumeMounts: {name:?} is not in spec.pod.volumes; add it there")]
    UnknownVolume {
        /// The volume.
        name: String,
    },
    /// A mount would hide what the trainer needs.
    #[error(
        "spec.pod.volumeMounts: {path:?} would lie over or under {needed}, which the trainer needs; mount it elsewhere"
    )]
    ReservedMount {
        /// The mount.
        path: String,
        /// What it would hide.
        needed: &'static str,
    },
}

/// Prefix of the names of the operator's own volumes.
pub const VOLUME_PREFIX: &str = "datjob-";

const RESERVED_MOUNTS: [&str; 6] = [
    contract::TRAINING_DIR,
    contract::DATA_DIR,
    contract::FILES_DIR,
    contract::CHECKPOINT_DIR,
    contract::SCRATCH_DIR,
    contract::SHARED_MEMORY_DIR,
];
const RESERVED_LABELS: [&str; 5] = [
    "datjob.io",
    "app.kubernetes.io",
    "apps.kubernetes.io",
    "statefulset.kubernetes.io",
    "controller-revision-hash",
];

/// Where AWS answers.
const HTTPS: u16 = 443;

/// Decides what is to be done with a job. `gpus`: whether jobs may ask for GPUs.
pub fn validate<'a>(job: &'a DatJob, identity: &'a Identity, gpus: bool) -> Validated<'a> {
    let status = job.status.as_ref();
    if status.is_some_and(|status| conditions::is_true(status, conditions::FINISHED)) {
        return Validated::Finished;
    }
    // Only before the first attempt: a newer operator with a new rule must not end a job that an older one started.
    let started = status.is_some_and(|status| status.attempt > 0);
    match check(job, gpus) {
        Err(invalid) if !started => Validated::Invalid(invalid),
        _ => Validated::Run(ValidJob { job, identity, source_ports: source_ports(job) }),
    }
}

fn check(job: &DatJob, gpus: bool) -> Result<(), InvalidSpec> {
    let spec = &job.spec;
    check_gpus(&spec.pod, spec.topology(), gpus)?;
    spec.training.check(spec.topology())?;
    match &spec.training.data.source {
        Source::Http(http) => check_url("data.source", &http.url)?,
        Source::ObjectStore(store) => {
            check_object_store(store, data_port(&spec.training.data.source), &spec.pod)?;
        }
        Source::Volume(volume)
            if volume.path.starts_with('/') || volume.path.split('/').any(|part| part == "..") =>
        {
            return Err(InvalidSpec::Path { path: volume.path.clone() });
        }
        _ => {}
    }
    for (file, source) in spec.training.files() {
        if let FileSource::Http(http) = source {
            check_url(file.field(), &http.url)?;
        }
    }
    let pod = &spec.pod;
    check_container(pod)?;
    check_keys("spec.pod.labels", pod.labels.keys(), &RESERVED_LABELS)?;
    check_keys("spec.pod.annotations", pod.annotations.keys(), &RESERVED_LABELS[..1])?;
    check_volumes(&pod.volumes)?;
    check_mounts(&pod.volumes, &pod.volume_mounts)
}

fn check_url(field: &'static str, url: &str) -> Result<(), InvalidSpec> {
    url_port(url).map(drop).ok_or_else(|| InvalidSpec::Url { field, url: url.to_owned() })
}

fn url_port(url: &str) -> Option<u16> {
    reqwest::Url::parse(url).ok().filter(reqwest::Url::has_host)?.port_or_known_default()
}

fn data_port(source: &Source) -> Option<u16> {
    match source {
        Source::Http(http) => url_port(&http.url),
        Source::ObjectStore(ObjectStoreSource { endpoint: Some(endpoint), .. }) => url_port(endpoint),
        Source::ObjectStore(_) => Some(HTTPS),
        Source::Volume(_) | Source::Image(_) => None,
    }
}

fn source_ports(job: &DatJob) -> BTreeSet<u16> {
    let training = &job.spec.training;
    let files = training.files().into_iter().filter_map(|(_, source)| match source {
        FileSource::Http(http) => url_port(&http.url),
        FileSource::Volume(_) => None,
    });
    files.chain(data_port(&training.data.source)).collect()
}

fn check_object_store(
    store: &ObjectStoreSource,
    port: Option<u16>,
    pod: &PodOptions,
) -> Result<(), InvalidSpec> {
    if let (None, Some(endpoint)) = (port, &store.endpoint) {
        return Err(InvalidSpec::Endpoint { endpoint: endpoint.clone() });
    }
    let taken = |name: &str| store.secret_name.is_some() && contract::ENV_AWS.contains(&name);
    match pod.env.iter().find(|variable| taken(&variable.name)) {
        Some(variable) => Err(InvalidSpec::SecretVariable { name: variable.name.clone() }),
        None => Ok(()),
    }
}

fn check_gpus(pod: &PodOptions, topology: Topology, gpus_on: bool) -> Result<(), InvalidSpec> {
    let requested =
        pod.resources.requests.iter().flatten().map(|(name, quantity)| (name.as_str(), quantity.0.as_str()));
    let limited: Vec<(&str, &str)> = pod.gpu_resources().collect();
    for (resource, quantity) in
        requested.filter(|(name, _)| PodOptions::is_gpu(name)).chain(limited.iter().copied())
    {
        let resource = resource.to_owned();
        if !gpus_on {
            return Err(InvalidSpec::GpusOff { resource });
        }
        // Kubernetes wants devices in limits, and takes no part of one.
        if quantity.parse::<u32>().is_err() || !limited.iter().any(|(name, _)| *name == resource) {
            return Err(InvalidSpec::Gpus { resource, quantity: quantity.to_owned() });
        }
    }
    let Topology { workers, gpus, .. } = topology;
    if workers < gpus { Err(InvalidSpec::IdleGpus { workers, gpus }) } else { Ok(()) }
}

fn check_container(pod: &PodOptions) -> Result<(), InvalidSpec> {
    if let Some(policy) = &pod.image_pull_policy
        && !["Always", "IfNotPresent", "Never"].contains(&policy.as_str())
    {
        return Err(InvalidSpec::PullPolicy { policy: policy.clone() });
    }
    let reserved = |name: &str| name.starts_with(contract::ENV_PREFIX) && name != contract::ENV_LOG;
    if let Some(variable) = pod.env.iter().find(|variable| reserved(&variable.name)) {
        return Err(InvalidSpec::ReservedVariable { name: variable.name.clone() });
    }
    no_duplicates("spec.pod.env", pod.env.iter().map(|variable| variable.name.as_str()))
}

fn check_keys<'a>(
    field: &'static str,
    mut keys: impl Iterator<Item = &'a String>,
    reserved: &[&str],
) -> Result<(), InvalidSpec> {
    let is_reserved = |key: &str| {
        let prefix = key.split('/').next().unwrap_or_default();
        reserved.iter().any(|name| prefix == *name || prefix.ends_with(&format!(".{name}")))
    };
    match keys.find(|key| is_reserved(key)) {
        Some(key) => Err(InvalidSpec::ReservedKey { field, key: key.clone() }),
        None => Ok(()),
    }
}

fn check_volumes(volumes: &[Volume]) -> Result<(), InvalidSpec> {
    for volume in volumes {
        let name = volume.name.clone();
        if name.starts_with(VOLUME_PREFIX) {
            return Err(InvalidSpec::ReservedVolume { name });
        }
        let sources = [
            volume.persistent_volume_claim.is_some(),
            volume.config_map.is_some(),
            volume.secret.is_some(),
            volume.empty_dir.is_some(),
        ];
        if sources.into_iter().filter(|there| *there).count() != 1 {
            return Err(InvalidSpec::VolumeSource { name });
        }
    }
    no_duplicates("spec.pod.volumes", volumes.iter().map(|volume| volume.name.as_str()))
}

fn check_mounts(volumes: &[Volume], mounts: &[VolumeMount]) -> Result<(), InvalidSpec> {
    for mount in mounts {
        if !volumes.iter().any(|volume| volume.name == mount.name) {
            return Err(InvalidSpec::UnknownVolume { name: mount.name.clone() });
        }
        let path = parts(&mount.mount_path);
        let hides = |needed: &&str| {
            let needed = parts(needed);
            path.starts_with(&needed) || needed.starts_with(&path)
        };
        if let Some(needed) = RESERVED_MOUNTS.into_iter().find(hides) {
            return Err(InvalidSpec::ReservedMount { path: mount.mount_path.clone(), needed });
        }
    }
    no_duplicates("spec.pod.volumeMounts", mounts.iter().map(|mount| mount.mount_path.as_str()))
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

fn no_duplicates<'a>(field: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), InvalidSpec> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(InvalidSpec::Duplicate { field, name: name.to_owned() });
        }
    }
    Ok(())
}

/// Whether the job is on its way out: its children go with it, and nothing is to be done.
pub fn is_deleted(job: &DatJob) -> bool {
    job.meta().deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Backend;

    use super::*;
    use crate::testing::minimal;

    fn problem(change: impl FnOnce(&mut DatJob)) -> String {
        let mut job = minimal();
        change(&mut job);
        let identity = Identity::of(&job).unwrap();
        match validate(&job, &identity, true) {
            Validated::Invalid(invalid) => invalid.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn pod(json: serde_json::Value) -> String {
        problem(|job| job.spec.pod = serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_shortest_manifest_is_valid() {
        let job = minimal();
        let identity = Identity::of(&job).unwrap();
        assert!(matches!(validate(&job, &identity, true), Validated::Run(_)));
    }

    #[test]
    fn every_refusal_names_its_field_and_what_stands_there() {
        use serde_json::json;
        let volume = |name: &str| json!({"name": name, "emptyDir": {}});
        let mount = |path: &str| json!({"volumes": [volume("v")], "volumeMounts": [{"name": "v", "mountPath": path}]});
        let cases = [
            (
                json!({"resources": {"requests": {"nvidia.com/mig-1g.10gb": "1"}}}),
                "spec.pod.resources.limits",
                "write it in limits",
            ),
            (
                json!({"resources": {"limits": {"nvidia.com/gpu": "500m"}}}),
                "spec.pod.resources.limits",
                "500m",
            ),
            (json!({"imagePullPolicy": "always"}), "spec.pod.imagePullPolicy", "IfNotPresent"),
            (json!({"env": [{"name": "DATJOB_ATTEMPT", "value": "7"}]}), "spec.pod.env", "DATJOB_ATTEMPT"),
            (json!({"env": [{"name": "A"}, {"name": "A"}]}), "spec.pod.env", "twice"),
            (json!({"labels": {"app.kubernetes.io/name": "x"}}), "spec.pod.labels", "app.kubernetes.io/name"),
            (json!({"labels": {"sub.datjob.io/x": "x"}}), "spec.pod.labels", "sub.datjob.io/x"),
            (json!({"annotations": {"datjob.io/attempt": "1"}}), "spec.pod.annotations", "datjob.io/attempt"),
            (json!({"volumes": [volume("datjob-data")]}), "spec.pod.volumes", "datjob-data"),
            (json!({"volumes": [volume("a"), volume("a")]}), "spec.pod.volumes", "twice"),
            (json!({"volumes": [{"name": "a"}]}), "spec.pod.volumes", "exactly one of"),
            (json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}), "spec.pod.volumeMounts", "\"x\""),
            (mount("/data"), "spec.pod.volumeMounts", "/data"),
            (mount("/data/sub/"), "spec.pod.volumeMounts", "/data"),
            (mount("/"), "spec.pod.volumeMounts", "/etc/datjob"),
            (mount("/etc"), "spec.pod.volumeMounts", "/etc/datjob"),
            (mount("//tmp"), "spec.pod.volumeMounts", "/tmp"),
            (mount("/dev/shm"), "spec.pod.volumeMounts", "/dev/shm"),
        ];
        for (json, field, word) in cases {
            let sentence = pod(json);
            assert!(sentence.starts_with(&format!("{field}: ")) && sentence.contains(word), "{sentence}");
        }
    }

    fn with_gpus(count: &str, workers: Option<u32>) -> DatJob {
        let mut job = minimal();
        let limits = serde_json::json!({"resources": {"limits": {"nvidia.com/gpu": count, "rdma/hca": "1"}}});
        job.spec.pod = serde_json::from_value(limits).unwrap();
        job.spec.workers_per_pod = workers;
        job
    }

    #[test]
    fn gpus_are_a_matter_of_the_installation() {
        let job = with_gpus("2", None);
        let off = check(&job, false).unwrap_err().to_string();
        assert!(off.contains("nvidia.com/gpu") && off.contains("gpu.enabled=true"), "{off}");
        check(&job, true).unwrap();
        assert_eq!(job.spec.topology().workers, 2);
    }

    #[test]
    fn no_gpu_stays_idle_and_ranks_may_share_one_without_nccl() {
        let idle = check(&with_gpus("4", Some(2)), true).unwrap_err().to_string();
        assert!(idle.starts_with("spec.workersPerPod: 2 workers leave some of the 4 GPUs"), "{idle}");
        let mut shared = with_gpus("1", Some(2));
        check(&shared, true).unwrap();
        shared.spec.training.communication.backend = Backend::Nccl;
        let refused = check(&shared, true).unwrap_err().to_string();
        assert!(refused.starts_with("spec.training.communication.backend: "), "{refused}");
    }

    #[test]
    fn the_training_spec_is_checked_against_the_world() {
        let sentence = problem(|job| job.spec.training.schedule.batch_size = 1);
        assert!(sentence.starts_with("spec.training.schedule.batchSize: "), "{sentence}");
    }

    #[test]
    fn sources_are_checked() {
        let source = |json: serde_json::Value| {
            problem(|job| job.spec.training.data.source = serde_json::from_value(json).unwrap())
        };
        let claim = serde_json::json!({"claimName": "c"});
        for path in ["/abs", "a/../b", ".."] {
            let sentence =
                source(serde_json::json!({"volume": {"persistentVolumeClaim": claim, "path": path}}));
            assert!(sentence.starts_with("spec.training.data.source.volume.path: "), "{sentence}");
        }
        let url = serde_json::json!({"http": {"url": "https://", "sha256": "0".repeat(64)}});
        assert!(source(url).starts_with("spec.training.data.source.http.url: "));
        let store = |endpoint: &str| serde_json::json!({"objectStore": {"url": "s3://bucket", "endpoint": endpoint, "secretName": "s"}});
        let sentence = source(store("https://"));
        assert!(sentence.starts_with("spec.training.data.source.objectStore.endpoint: "), "{sentence}");
        let sentence = problem(|job| {
            job.spec.training.data.source = serde_json::from_value(store("http://store:9000")).unwrap();
            job.spec.pod =
                serde_json::from_value(serde_json::json!({"env": [{"name": "AWS_ACCESS_KEY_ID"}]})).unwrap();
        });
        assert!(
            sentence.starts_with("spec.pod.env: AWS_ACCESS_KEY_ID is taken from the secret"),
            "{sentence}"
        );
    }

    #[test]
    fn other_prefixes_are_free() {
        let mut job = minimal();
        job.spec.pod = serde_json::from_value(serde_json::json!({
            "labels": {"team": "a", "example.com/app": "b", "notdatjob.io/x": "c"},
            "annotations": {"app.kubernetes.io/x": "y"},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "volumeMounts": [{"name": "v", "mountPath": "/database"}],
            "env": [{"name": "DATJOB_LOG", "value": "debug"}]
        }))
        .unwrap();
        check(&job, true).unwrap();
    }

    #[test]
    fn a_started_job_is_not_ended_by_a_new_rule() {
        let mut job = minimal();
        job.spec.pod.image_pull_policy = Some("Sometimes".into());
        job.status = Some(datjob_api::datjob::DatJobStatus { attempt: 1, ..Default::default() });
        let identity = Identity::of(&job).unwrap();
        assert!(matches!(validate(&job, &identity, true), Validated::Run(_)));
    }

    #[test]
    fn a_finished_job_stays_finished() {
        let mut job = minimal();
        let mut status = datjob_api::datjob::DatJobStatus::default();
        conditions::set(
            &mut status,
            conditions::FINISHED,
            true,
            "Complete",
            "",
            1,
            jiff::Timestamp::UNIX_EPOCH,
        );
        job.status = Some(status);
        let identity = Identity::of(&job).unwrap();
        assert!(matches!(validate(&job, &identity, true), Validated::Finished));
    }
}
