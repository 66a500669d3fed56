//! Valid specs, and the field that each refusal names.

use datjob_api::training::Backend;

use super::*;
use crate::testing::minimal;

fn problem(change: impl FnOnce(&mut DatJob)) -> String {
    let mut job = minimal();
    change(&mut job);
    let identity = Identity::of(&job).unwrap();
    match validate(&job, &identity) {
        Validation::Invalid(invalid) => invalid.to_string(),
        other => panic!("{other:?}"),
    }
}

fn pod(json: serde_json::Value) -> String {
    problem(|job| job.spec.pod = serde_json::from_value(json).unwrap())
}

#[test]
fn accepts_the_minimal_manifest() {
    let job = minimal();
    let identity = Identity::of(&job).unwrap();
    assert!(matches!(validate(&job, &identity), Validation::Valid(_)));
}

#[test]
fn refusals_name_the_field_and_the_value() {
    use serde_json::json;
    let volume = |name: &str| json!({"name": name, "emptyDir": {}});
    let mount =
        |path: &str| json!({"volumes": [volume("v")], "volumeMounts": [{"name": "v", "mountPath": path}]});
    let cases = [
        (
            json!({"resources": {"requests": {"nvidia.com/mig-1g.10gb": "1"}}}),
            "spec.pod.resources.limits",
            "must be set in limits",
        ),
        (json!({"resources": {"limits": {"nvidia.com/gpu": "500m"}}}), "spec.pod.resources.limits", "500m"),
        (json!({"imagePullPolicy": "always"}), "spec.pod.imagePullPolicy", "IfNotPresent"),
        (json!({"env": [{"name": "DATJOB_ATTEMPT", "value": "7"}]}), "spec.pod.env", "DATJOB_ATTEMPT"),
        (json!({"env": [{"name": "A"}, {"name": "A"}]}), "spec.pod.env", "duplicate"),
        (json!({"labels": {"app.kubernetes.io/name": "x"}}), "spec.pod.labels", "app.kubernetes.io/name"),
        (json!({"labels": {"sub.datjob.io/x": "x"}}), "spec.pod.labels", "sub.datjob.io/x"),
        (json!({"annotations": {"datjob.io/attempt": "1"}}), "spec.pod.annotations", "datjob.io/attempt"),
        (json!({"volumes": [volume("datjob-data")]}), "spec.pod.volumes", "datjob-data"),
        (json!({"volumes": [volume("a"), volume("a")]}), "spec.pod.volumes", "duplicate"),
        (json!({"volumes": [{"name": "a"}]}), "spec.pod.volumes", "exactly one of"),
        (json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}), "spec.pod.volumeMounts", "\"x\""),
        (mount("/data"), "spec.pod.volumeMounts", "/data"),
        (mount("/data/sub/"), "spec.pod.volumeMounts", "/data"),
        (mount("/"), "spec.pod.volumeMounts", "/etc/datjob"),
        (mount("/etc"), "spec.pod.volumeMounts", "/etc/datjob"),
        (mount("//tmp"), "spec.pod.volumeMounts", "/tmp"),
        (mount("/dev/shm"), "spec.pod.volumeMounts", "/dev/shm"),
    ];
    for (json, field, part) in cases {
        let sentence = pod(json);
        assert!(sentence.starts_with(&format!("{field}: ")) && sentence.contains(part), "{sentence}");
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
fn each_gpu_has_a_worker_by_default() {
    let job = with_gpus("2", None);
    check(&job).unwrap();
    assert_eq!(job.spec.topology().workers, 2);
}

#[test]
fn rejects_idle_gpus_and_nccl_on_shared_gpus() {
    let idle = check(&with_gpus("4", Some(2))).unwrap_err().to_string();
    assert!(
        idle.starts_with(
            "spec.workersPerPod: invalid value 2: must be at least the number of GPUs per pod (4)"
        ),
        "{idle}"
    );
    let mut shared = with_gpus("1", Some(2));
    check(&shared).unwrap();
    shared.spec.training.communication.backend = Backend::Nccl;
    let refused = check(&shared).unwrap_err().to_string();
    assert!(refused.starts_with("spec.training.communication.backend: "), "{refused}");
}

#[test]
fn rejects_a_batch_smaller_than_the_world() {
    let sentence = problem(|job| job.spec.training.schedule.batch_size = 1);
    assert!(sentence.starts_with("spec.training.schedule.batchSize: "), "{sentence}");
}

#[test]
fn rejects_invalid_sources() {
    let source = |json: serde_json::Value| {
        problem(|job| job.spec.training.data.source = serde_json::from_value(json).unwrap())
    };
    let claim = serde_json::json!({"claimName": "c"});
    for path in ["/abs", "a/../b", ".."] {
        let sentence = source(serde_json::json!({"volume": {"persistentVolumeClaim": claim, "path": path}}));
        assert!(sentence.starts_with("spec.training.data.source.volume.path: "), "{sentence}");
    }
    let url = serde_json::json!({"http": {"url": "https://", "sha256": "0".repeat(64)}});
    assert!(source(url).starts_with("spec.training.data.source.http.url: "));
    let store = |endpoint: &str| {
        let store = serde_json::json!({"url": "s3://bucket", "endpoint": endpoint, "secretName": "s"});
        serde_json::json!({"objectStore": store})
    };
    let sentence = source(store("https://"));
    assert!(sentence.starts_with("spec.training.data.source.objectStore.endpoint: "), "{sentence}");
    let sentence = problem(|job| {
        job.spec.training.data.source = serde_json::from_value(store("http://store:9000")).unwrap();
        job.spec.pod =
            serde_json::from_value(serde_json::json!({"env": [{"name": "AWS_ACCESS_KEY_ID"}]})).unwrap();
    });
    assert!(sentence.starts_with("spec.pod.env: AWS_ACCESS_KEY_ID comes from the Secret"), "{sentence}");
}

#[test]
fn messages_omit_urls() {
    let json = serde_json::json!({"http": {"url": "https://host:x/data.tar?token=s3cret", "sha256": "0".repeat(64)}});
    let sentence = problem(|job| job.spec.training.data.source = serde_json::from_value(json).unwrap());
    assert_eq!(
        sentence,
        "spec.training.data.source.http.url: invalid URL (invalid port number); expected for example \
         https://host/data.tar.gz"
    );
}

#[test]
fn accepts_unreserved_prefixes() {
    let mut job = minimal();
    job.spec.pod = serde_json::from_value(serde_json::json!({
        "labels": {"team": "a", "example.com/app": "b", "notdatjob.io/x": "c", "datjob.io": "d"},
        "annotations": {"app.kubernetes.io/x": "y"},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "volumeMounts": [{"name": "v", "mountPath": "/database"}],
        "env": [{"name": "DATJOB_LOG", "value": "debug"}]
    }))
    .unwrap();
    check(&job).unwrap();
}

#[test]
fn a_new_rule_does_not_fail_a_started_job() {
    let mut job = minimal();
    job.spec.pod.image_pull_policy = Some("Sometimes".into());
    job.status = Some(datjob_api::datjob::DatJobStatus { attempt: 1, ..Default::default() });
    let identity = Identity::of(&job).unwrap();
    assert!(matches!(validate(&job, &identity), Validation::Valid(_)));
}

#[test]
fn a_finished_job_stays_finished() {
    let mut job = minimal();
    let mut status = datjob_api::datjob::DatJobStatus::default();
    conditions::set(&mut status, conditions::FINISHED, true, "Complete", "", 1, jiff::Timestamp::UNIX_EPOCH);
    job.status = Some(status);
    let identity = Identity::of(&job).unwrap();
    assert!(matches!(validate(&job, &identity), Validation::Finished));
}
