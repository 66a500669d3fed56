//! Data from a volume and from an archive over HTTP. The other tests use a data image.

use datjob_e2e::{Namespace, job, wait_until};
use serde_json::{Value, json};

/// A job of one epoch with this data source.
fn job_with_source(name: &str, source: Value) -> Value {
    let mut document = job::small(name);
    document["spec"]["training"]["data"]["source"] = source;
    document["spec"]["training"]["schedule"]["epochs"] = 1.into();
    document
}

#[test]
fn trains_on_a_directory_of_a_volume() {
    let namespace = Namespace::new("volume");
    for claim in ["checkpoints", "data"] {
        namespace.apply(&job::claim(claim)).expect("the claim is created");
    }
    let volume = json!({"persistentVolumeClaim": {"claimName": "data"}});
    let fill = job::script_pod("fill", volume, "DATJOB_DATA=/work/sets/fm /bin/sh /bin/copy-data");
    namespace.apply(&fill).expect("the pod is created");
    namespace.wait_for_success("fill");
    let source = json!({"volume": {"persistentVolumeClaim": {"claimName": "data"}, "path": "sets/fm"}});
    namespace.apply(&job_with_source("from-volume", source)).expect("the job is accepted");
    namespace.wait_for_condition("from-volume", "Complete", 600);

    let missing = json!({"volume": {"persistentVolumeClaim": {"claimName": "data"}, "path": "sets/cifar"}});
    namespace.apply(&job_with_source("missing-path", missing)).expect("the job is accepted");
    let object = namespace.wait_for_condition("missing-path", "Failed", 300);
    let failed = job::condition(&object, "Failed").expect("the condition exists");
    assert_eq!(failed["reason"], "DataFailure");
    let message = failed["message"].as_str().expect("a sentence");
    let expected = "spec.training.data.source.volume.path: directory \"sets/cifar\" not found on the volume of \
                    PersistentVolumeClaim \"data\"";
    assert!(message.contains(expected), "{message}");
    // Neither operator nor kubelet has created the directory.
    let volume = json!({"persistentVolumeClaim": {"claimName": "data"}});
    let script = "test -d /work/sets/fm && test ! -e /work/sets/cifar";
    namespace.apply(&job::script_pod("check", volume, script)).expect("the pod is created");
    namespace.wait_for_success("check");
}

#[test]
fn verifies_and_trains_on_an_archive_over_http() {
    let namespace = Namespace::new("http");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let script = "/bin/busybox tar -cf /work/fm.tar -C /fashion-mnist . && \
        /bin/busybox sha256sum /work/fm.tar && exec /bin/busybox httpd -f -p 8000 -h /work";
    let server = job::script_pod("server", json!({"emptyDir": {}}), script);
    namespace.apply(&server).expect("the pod is created");
    namespace.apply(&job::service("server")).expect("the service is created");
    let sha256 = wait_until("checksum", 120, || {
        let logs = namespace.kubectl(&["logs", "server"])?;
        logs.split_whitespace().next().map(str::to_owned).ok_or("the log is empty".to_owned())
    });
    let source = |sha256: &str| json!({"http": {"url": "http://server:8000/fm.tar", "sha256": sha256}});

    namespace.apply(&job_with_source("altered", source(&"0".repeat(64)))).expect("the job is accepted");
    let object = namespace.wait_for_condition("altered", "Failed", 300);
    let message = job::condition(&object, "Failed").expect("the condition exists")["message"].to_string();
    assert!(message.contains(&sha256) && message.contains("http://server:8000/fm.tar"), "{message}");

    namespace.apply(&job_with_source("from-http", source(&sha256))).expect("the job is accepted");
    namespace.wait_for_condition("from-http", "Complete", 600);
}
