//! Snapshots of the children of jobs. Review each change: it changes what runs in clusters.

use datjob_api::datjob::DatJob;
use datjob_operator::controller::{
    attempt::AttemptAction,
    build::{AttemptToken, Children, Settings, build},
    identity::Identity,
    validate::{Validation, validate},
};

fn job(manifest: &str) -> DatJob {
    // Via JSON, because serde_yaml expects tags for enum variants.
    let json: serde_json::Value = serde_yaml::from_str(manifest).unwrap();
    let mut job: DatJob = serde_json::from_value(json).unwrap();
    job.metadata.namespace = Some("team".into());
    job.metadata.uid = Some("2f9d3c1e-0000-4000-8000-000000000001".into());
    job
}

fn children(manifest: &str, namespace: Option<&str>) -> Children {
    let job = job(manifest);
    let identity = Identity::of(&job).unwrap();
    let settings = Settings {
        trainer_image: "registry.example/datjob-trainer:0.1.0".into(),
        trainer_cuda_image: Some("registry.example/datjob-trainer-cuda:0.1.0".into()),
        operator_namespace: namespace.map(Into::into),
    };
    match validate(&job, &identity) {
        Validation::Valid(valid) => {
            build(&valid, AttemptAction::Start(1), &AttemptToken::from_bytes([0x5a; 32]), &settings)
        }
        other => panic!("{other:?}"),
    }
}

macro_rules! snapshots {
    ($name:literal, $children:expr) => {{
        let children = $children;
        insta::assert_yaml_snapshot!(concat!($name, "-stateful-set"), children.stateful_set);
        insta::assert_yaml_snapshot!(concat!($name, "-config-map"), children.config_map);
        insta::assert_yaml_snapshot!(concat!($name, "-service"), children.service);
        insta::assert_yaml_snapshot!(concat!($name, "-disruption-budget"), children.disruption_budget);
        insta::assert_yaml_snapshot!(concat!($name, "-network-policy"), children.network_policy);
    }};
}

const MINIMAL: &str = include_str!("fixtures/minimal.yaml");
const FULL: &str = include_str!("fixtures/full.yaml");

#[test]
fn children_of_the_minimal_manifest() {
    snapshots!("minimal", children(MINIMAL, Some("datjob-system")));
}

#[test]
fn children_of_the_full_manifest() {
    snapshots!("full", children(FULL, Some("datjob-system")));
}

#[test]
fn an_http_source_opens_its_port_and_mounts_data_writable() {
    let manifest = MINIMAL.replace(
        "{image: {reference: \"registry.example/fashion-mnist:1\"}}",
        &format!("{{http: {{url: \"https://host:8443/data.tar.gz\", sha256: \"{}\"}}}}", "0".repeat(64)),
    );
    let children = children(&manifest, None);
    insta::assert_yaml_snapshot!("http-network-policy", children.network_policy);
    let pod = children.stateful_set.unwrap().spec.unwrap().template.spec.unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    // The agent unpacks the archive to this directory.
    assert_eq!(mounts.iter().find(|mount| mount.mount_path == "/data").unwrap().read_only, None);
}

#[test]
fn an_object_store_sets_credentials_of_the_trainer_and_opens_its_port() {
    let with = |source: &str| {
        let manifest = MINIMAL.replace("{image: {reference: \"registry.example/fashion-mnist:1\"}}", source);
        assert_ne!(manifest, MINIMAL, "the fixture has changed");
        let children = children(&manifest, None);
        let ports = children.network_policy.unwrap().spec.unwrap().egress.unwrap();
        let port = ports.last().unwrap().ports.clone().unwrap()[0].port.clone().unwrap();
        (
            children.stateful_set.unwrap().spec.unwrap().template.spec.unwrap(),
            serde_json::to_value(port).unwrap(),
        )
    };
    let (pod, port) = with(
        "{objectStore: {url: \"s3://bucket/mnist\", endpoint: \"http://store:9000\", secretName: keys}}",
    );
    assert_eq!(port, 9000);
    assert_eq!(pod.init_containers, None);
    let trainer = serde_json::to_value(&pod.containers[0]).unwrap();
    let variables = trainer["env"].as_array().unwrap();
    let keys: Vec<_> =
        variables.iter().filter(|v| v["valueFrom"]["secretKeyRef"].is_object()).cloned().collect();
    let key = |name: &str| serde_json::json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "keys", "key": name}}});
    assert_eq!(keys, [key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY")]);
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    assert_eq!(mounts.iter().find(|mount| mount.mount_path == "/data").unwrap().read_only, None);

    let (anonymous, port) = with("{objectStore: {url: \"s3://bucket/mnist\"}}");
    assert_eq!(port, 443);
    assert!(!serde_json::to_string(&anonymous).unwrap().contains("AWS_"));
}

#[test]
fn additional_files_are_mounted_or_their_port_is_open() {
    let weights =
        "initialWeights: {source: {volume: {persistentVolumeClaim: {claimName: models}, path: a/best.pt}}}";
    let manifest = MINIMAL.replace("architecture: small-cnn", &format!("architecture: small-cnn, {weights}"));
    assert_ne!(manifest, MINIMAL, "the fixture has changed");
    let mounted = children(&manifest, None);
    let pod = mounted.stateful_set.unwrap().spec.unwrap().template.spec.unwrap();
    let volume =
        pod.volumes.unwrap().into_iter().find(|volume| volume.name == "datjob-initial-weights").unwrap();
    let claim = volume.persistent_volume_claim.unwrap();
    assert_eq!((claim.claim_name.as_str(), claim.read_only), ("models", Some(true)));
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    let mount = mounts.iter().find(|mount| mount.mount_path == "/files/initial-weights").unwrap();
    assert_eq!((mount.name.as_str(), mount.read_only), ("datjob-initial-weights", Some(true)));

    let sha256 = "0".repeat(64);
    let http = format!("{{http: {{url: \"http://models:8000/best.pt\", sha256: \"{sha256}\"}}}}");
    let volume = "{volume: {persistentVolumeClaim: {claimName: models}, path: a/best.pt}}";
    let fetched = children(&manifest.replace(volume, &http), None);
    let egress = fetched.network_policy.unwrap().spec.unwrap().egress.unwrap();
    let ports = serde_json::to_value(egress.last().unwrap().ports.clone()).unwrap();
    assert_eq!(ports[0]["port"], 8000);
    let pod = fetched.stateful_set.unwrap().spec.unwrap().template.spec.unwrap();
    assert!(!serde_json::to_string(&pod).unwrap().contains("initial-weights"));
}

/// A ResourceQuota for CPU or memory refuses a pod in which one container has none.
#[test]
fn the_data_container_has_the_resources_of_the_trainer_without_devices() {
    let manifest = MINIMAL.replace(
        "  replicas: 2\n",
        "  replicas: 2\n  pod:\n    resources:\n      requests: {cpu: 200m}\n      limits: {memory: 2Gi, nvidia.com/gpu: 4}\n",
    );
    assert_ne!(manifest, MINIMAL, "the fixture has changed");
    let pod = children(&manifest, None).stateful_set.unwrap().spec.unwrap().template.spec.unwrap();
    let data = pod.init_containers.unwrap()[0].resources.clone();
    let expected = serde_json::json!({"requests": {"cpu": "200m"}, "limits": {"memory": "2Gi"}});
    assert_eq!(serde_json::to_value(data).unwrap(), expected);
}

/// The kubelet creates a missing subPath on the volume, also through a read-only mount.
#[test]
fn a_path_on_a_volume_is_not_created_by_its_mount() {
    assert!(FULL.contains("path: cifar10"), "the fixture has changed");
    let pod = children(FULL, None).stateful_set.unwrap().spec.unwrap().template.spec.unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    let data = mounts.iter().find(|mount| mount.mount_path == "/data").unwrap();
    assert_eq!((data.read_only, data.sub_path.as_deref()), (Some(true), None));
}

#[test]
fn a_shared_claim_for_data_and_checkpoints_is_attached_writable() {
    let children = children(&FULL.replace("claimName: datasets", "claimName: checkpoints"), None);
    let pod = children.stateful_set.unwrap().spec.unwrap().template.spec.unwrap();
    let claims: Vec<_> =
        pod.volumes.unwrap().into_iter().filter_map(|volume| volume.persistent_volume_claim).collect();
    assert!(claims.iter().all(|claim| claim.read_only.is_none()));
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    assert_eq!(mounts.iter().find(|mount| mount.mount_path == "/data").unwrap().read_only, Some(true));
}

#[test]
fn equal_jobs_have_equal_children() {
    let json = |children: Children| serde_json::to_string(&children.stateful_set).unwrap();
    assert_eq!(json(children(FULL, None)), json(children(FULL, None)));
}

#[test]
fn a_disabled_network_policy_is_not_created() {
    let manifest = MINIMAL.replace("  training:", "  networkPolicy: {enabled: false}\n  training:");
    assert_eq!(children(&manifest, None).network_policy, None);
}

#[test]
fn the_longest_job_name_gives_valid_names_of_children() {
    let name = "a".repeat(datjob_api::datjob::MAX_NAME_LENGTH);
    let children = children(&MINIMAL.replace("name: fashion}", &format!("name: {name}}}")), None);
    let config_map = children.config_map.metadata.name.unwrap();
    assert!(config_map.len() <= 63, "{config_map}");
}

#[test]
fn a_gpu_pod_uses_the_cuda_image_with_one_worker_per_gpu() {
    let manifest = MINIMAL.replace(
        "  replicas: 2\n",
        "  replicas: 2\n  pod:\n    runtimeClassName: nvidia\n    sharedMemory: 8Gi\n    resources: {limits: {nvidia.com/gpu: 4, rdma/hca: 1}}\n    env: [{name: NCCL_SOCKET_IFNAME, value: eth1}]\n",
    );
    assert_ne!(manifest, MINIMAL, "the fixture has changed");
    let children = children(&manifest, None);
    insta::assert_yaml_snapshot!("gpu-stateful-set", children.stateful_set);
}
