//! Creation, failure and deletion of jobs.

use datjob_e2e::{Namespace, job, wait_until};

const CHILDREN: [&str; 6] =
    ["statefulsets", "pods", "services", "configmaps", "poddisruptionbudgets", "networkpolicies"];

#[test]
fn deleting_a_job_deletes_its_children_and_a_new_job_with_its_name_starts_over() {
    let namespace = Namespace::new("delete");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    namespace.apply(&job::small("same")).expect("the job is accepted");
    let first = namespace.wait_for_epoch("same", 1, 300);
    for kind in CHILDREN {
        assert!(!namespace.list(kind, "datjob.io/job-name=same").is_empty(), "no {kind}");
    }
    namespace.kubectl(&["delete", "datjob", "same", "--wait", "--timeout=120s"]).expect("the job is deleted");
    wait_until("deletion of all children", 120, || {
        let left: Vec<&str> = CHILDREN
            .into_iter()
            .filter(|kind| !namespace.list(kind, "datjob.io/job-name=same").is_empty())
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} remain")) }
    });
    assert!(namespace.get("persistentvolumeclaim", "checkpoints").is_some());

    let mut again = job::small("same");
    again["spec"]["training"]["schedule"]["epochs"] = 1.into();
    namespace.apply(&again).expect("the job is accepted");
    let second = namespace.wait_for_condition("same", "Complete", 600);
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let status = &second["status"];
    assert_eq!((&status["generation"], &status["attempt"]), (&1.into(), &1.into()), "{status}");
    assert_eq!(status["results"]["bestEpoch"], 1, "{status}");
    let weights = status["results"]["weights"].as_str().expect("a path");
    assert!(weights.starts_with(second["metadata"]["uid"].as_str().expect("a UID")), "{weights}");
}

#[test]
fn a_job_with_missing_data_fails_and_names_the_file() {
    let namespace = Namespace::new("no-data");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    namespace.apply(&job::claim("empty")).expect("the claim is created");
    let mut document = job::small("no-data");
    document["spec"]["training"]["data"]["source"] =
        serde_json::json!({"volume": {"persistentVolumeClaim": {"claimName": "empty"}}});
    namespace.apply(&document).expect("the job is accepted");
    let object = namespace.wait_for_condition("no-data", "Failed", 180);
    let failed = job::condition(&object, "Failed").expect("the condition exists");
    let message = failed["message"].as_str().expect("a sentence");
    assert!(message.contains("train-images-idx3-ubyte"), "{message}");
    assert_eq!(job::condition(&object, "Finished").expect("the condition exists")["status"], "True");
    // The end of the log is still there when the pods are gone.
    let log = object["status"]["failure"]["logFile"].as_str().expect("the log is kept");
    let volume = serde_json::json!({"persistentVolumeClaim": {"claimName": "checkpoints"}});
    let script = format!("/bin/busybox grep train-images-idx3-ubyte '/work/{log}'");
    namespace.apply(&job::script_pod("read-log", volume, &script)).expect("the pod is created");
    namespace.wait_for_success("read-log");
    let events = namespace.events("no-data");
    assert!(
        events.iter().any(|(reason, note)| reason == "Failed" && note.contains("train-images-idx3-ubyte")),
        "{events:?}"
    );
}

#[test]
fn a_missed_target_fails_the_job_and_keeps_its_results() {
    let namespace = Namespace::new("target");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("target");
    document["spec"]["training"]["schedule"]["epochs"] = 1.into();
    let evaluation = &mut document["spec"]["training"]["evaluation"];
    evaluation["final"] = serde_json::json!([{"square": {"queries": 2}}]);
    evaluation["target"] = serde_json::json!({"attack": "square-3", "accuracy": 100});
    let refusal = namespace.apply(&document).expect_err("a target of another attack is accepted");
    assert!(refusal.contains("target.attack must be the name of an attack of evaluation.final"), "{refusal}");

    document["metadata"]["name"] = "missed".into();
    document["spec"]["training"]["evaluation"]["target"]["attack"] = "square-2".into();
    namespace.apply(&document).expect("the job is accepted");
    let object = namespace.wait_for_condition("missed", "Failed", 600);
    let failed = job::condition(&object, "Failed").expect("the condition exists");
    assert_eq!(failed["reason"], "TargetMissed");
    assert_eq!(object["status"]["results"]["attacks"][0]["name"], "square-2");
    assert_eq!(object["status"]["failure"]["reason"], "TargetMissed");
}

#[test]
fn a_missing_claim_is_named_in_a_condition() {
    let namespace = Namespace::new("no-claim");
    namespace.apply(&job::small("no-claim")).expect("the job is accepted");
    let object = namespace.wait_for_condition("no-claim", "Stalled", 120);
    let message = job::condition(&object, "Stalled").expect("the condition exists")["message"].to_string();
    assert!(message.contains("checkpoints"), "{message}");
    // The job continues when the claim exists.
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    namespace.wait_for_epoch("no-claim", 1, 300);
}

#[test]
fn a_missing_image_is_named_in_a_condition() {
    let namespace = Namespace::new("no-image");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("no-image");
    document["spec"]["pod"]["image"] = "localhost/datjob/none:1".into();
    namespace.apply(&document).expect("the job is accepted");
    let object = namespace.wait_for_condition("no-image", "Stalled", 120);
    let message = job::condition(&object, "Stalled").expect("the condition exists")["message"].to_string();
    assert!(message.contains("localhost/datjob/none:1"), "{message}");
}

#[test]
fn a_quota_that_forbids_pods_is_named_in_a_condition() {
    let namespace = Namespace::new("quota");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let quota = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few-pods"},
        "spec": {"hard": {"pods": "1"}}
    });
    namespace.apply(&quota).expect("the quota is created");
    namespace.apply(&job::small("quota")).expect("the job is accepted");
    let object = namespace.wait_for_condition("quota", "Stalled", 120);
    let message = job::condition(&object, "Stalled").expect("the condition exists")["message"].to_string();
    assert!(message.contains("few-pods"), "{message}");
    // The job continues without the quota.
    namespace.kubectl(&["delete", "resourcequota", "few-pods"]).expect("the quota is deleted");
    namespace.wait_for_epoch("quota", 1, 300);
}
