//! Recovery from the loss of the operator or of pods during training.

use std::{thread, time::Duration};

use datjob_e2e::{Namespace, OPERATOR_NAMESPACE, job, kubectl, wait_until};
use serde_json::Value;

fn scale_operator(replicas: u32) {
    let replicas = format!("--replicas={replicas}");
    kubectl(
        &[
            "-n",
            OPERATOR_NAMESPACE,
            "scale",
            "deployment",
            "-l",
            "app.kubernetes.io/instance=datjob",
            &replicas,
        ],
        "",
    )
    .expect("the operator is scaled");
}

#[test]
fn training_continues_without_the_operator() {
    let namespace = Namespace::exclusive("operator");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("alone");
    document["spec"]["training"]["schedule"]["epochs"] = 6.into();
    namespace.apply(&document).expect("the job is accepted");
    namespace.wait_for_epoch("alone", 1, 300);
    let pods = job::pod_identities(&namespace.pods("alone"));

    scale_operator(0);
    let epoch_of = |report: &Value| report["progress"]["epoch"].as_u64().unwrap_or(0);
    let before = wait_until("report", 60, || namespace.report("alone").ok_or("no report".to_owned()));
    wait_until("another epoch without an operator", 300, || match namespace.report("alone") {
        Some(report) if epoch_of(&report) > epoch_of(&before) => Ok(()),
        other => Err(format!("the report is {other:?}")),
    });
    assert_eq!(job::pod_identities(&namespace.pods("alone")), pods, "the pods are unchanged");
    scale_operator(1);

    let object = namespace.wait_for_condition("alone", "Complete", 600);
    assert_eq!(object["status"]["restarts"]["total"], 0, "{}", object["status"]);
}

/// The SHA-256 of the weights of a complete job, and its number of restarts.
fn hash_and_restarts(object: &Value) -> (String, u64) {
    let status = &object["status"];
    let hash = status["results"]["sha256"].as_str().expect("results have a hash");
    (hash.to_owned(), status["restarts"]["total"].as_u64().expect("restarts are counted"))
}

#[test]
fn a_lost_pod_costs_one_restart_and_does_not_change_the_result() {
    let namespace = Namespace::new("lost-pod");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    namespace.apply(&job::small("undisturbed")).expect("the job is accepted");
    let object = namespace.wait_for_condition("undisturbed", "Complete", 600);
    let best = object["status"]["results"]["bestEpoch"].as_u64();
    assert!(best > Some(1), "the best epoch must be after the loss: {best:?}");
    let undisturbed = hash_and_restarts(&object);
    assert_eq!(undisturbed.1, 0);

    for (name, victim) in [("loses-host", "loses-host-0"), ("loses-other", "loses-other-1")] {
        namespace.apply(&job::small(name)).expect("the job is accepted");
        namespace.wait_for_epoch(name, 1, 300);
        namespace.kubectl(&["delete", "pod", victim, "--wait=false"]).expect("the pod is deleted");
        let disturbed = hash_and_restarts(&namespace.wait_for_condition(name, "Complete", 600));
        assert_eq!(disturbed, (undisturbed.0.clone(), 1), "{name}");
        let reasons: Vec<String> = namespace.events(name).into_iter().map(|(reason, _)| reason).collect();
        assert!(reasons.iter().any(|reason| reason == "Restarted"), "{reasons:?}");
    }
}

#[test]
fn a_job_completes_that_finished_and_lost_its_pods_without_the_operator() {
    let namespace = Namespace::exclusive("ended-alone");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("ended");
    document["spec"]["training"]["schedule"]["epochs"] = 1.into();
    namespace.apply(&document).expect("the job is accepted");
    wait_until("report", 300, || namespace.report("ended").ok_or("no report".to_owned()));
    scale_operator(0);
    let succeeded = || match namespace.report("ended") {
        Some(report) if report["phase"] == "Succeeded" => Ok(report),
        other => Err(format!("the report is {other:?}")),
    };
    let first = wait_until("results", 300, succeeded);
    let before = job::pod_identities(&namespace.pods("ended"));
    namespace
        .kubectl(&["delete", "pods", "-l", "datjob.io/job-name=ended", "--wait=false"])
        .expect("the pods are deleted");
    wait_until("replacement pods", 120, || {
        let now = job::pod_identities(&namespace.pods("ended"));
        let all_new = now.len() == before.len() && now.iter().all(|pod| !before.contains(pod));
        if all_new { Ok(()) } else { Err(format!("the pods are {now:?}")) }
    });
    let second = wait_until("results from the replacement pods", 120, succeeded);
    assert_eq!(second["results"], first["results"]);
    scale_operator(1);
    let object = namespace.wait_for_condition("ended", "Complete", 120);
    assert_eq!(object["status"]["results"]["sha256"], first["results"]["sha256"]);
}

/// The pod that holds the operator's lease.
fn lease_holder() -> Option<String> {
    let arguments = [
        "-n",
        OPERATOR_NAMESPACE,
        "get",
        "lease",
        "datjob-operator",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    kubectl(&arguments, "").ok().filter(|holder| !holder.is_empty())
}

#[test]
fn a_standby_takes_over_from_a_killed_leader() {
    let namespace = Namespace::exclusive("leader");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    scale_operator(2);
    wait_until("second operator", 120, || {
        kubectl(
            &[
                "-n",
                OPERATOR_NAMESPACE,
                "rollout",
                "status",
                "deployment",
                "-l",
                "app.kubernetes.io/instance=datjob",
                "--timeout=1s",
            ],
            "",
        )
    });
    namespace.apply(&job::small("led")).expect("the job is accepted");
    namespace.wait_for_epoch("led", 1, 300);
    let first = lease_holder().expect("an operator leads");
    // Killed without SIGTERM, so the lease must expire.
    kubectl(&["-n", OPERATOR_NAMESPACE, "delete", "pod", &first, "--grace-period=0", "--force"], "")
        .expect("the leader is killed");
    let object = namespace.wait_for_condition("led", "Complete", 600);
    assert_ne!(lease_holder(), Some(first));
    assert_eq!(object["status"]["restarts"]["total"], 0, "{}", object["status"]);
    scale_operator(1);
}

#[test]
fn editing_a_finished_job_starts_no_pods() {
    let namespace = Namespace::new("finished");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("done");
    document["spec"]["training"]["schedule"]["epochs"] = 1.into();
    namespace.apply(&document).expect("the job is accepted");
    let before = namespace.wait_for_condition("done", "Complete", 600);
    wait_until("termination of the pods", 120, || match namespace.pods("done").len() {
        0 => Ok(()),
        left => Err(format!("{left} pods remain")),
    });
    // As an operator does that cannot decode the job.
    let conditions = before["status"]["conditions"].as_array().expect("a list");
    let stalled = conditions.iter().position(|one| one["type"] == "Stalled").expect("the condition exists");
    let path = format!("/status/conditions/{stalled}/status");
    let patch = serde_json::json!([{"op": "replace", "path": path, "value": "True"}]).to_string();
    namespace
        .kubectl(&["patch", "datjob", "done", "--subresource=status", "--type=json", "-p", &patch])
        .expect("an administrator may change the status");
    let patch = r#"{"spec":{"lifecycle":{"maxRestarts":20,"activeDeadlineSeconds":100000}}}"#;
    namespace
        .kubectl(&["patch", "datjob", "done", "--type=merge", "-p", patch])
        .expect("lifecycle may change");
    wait_until("reconciliation of the change", 60, || {
        let object = namespace.get("datjob", "done").ok_or("the job does not exist")?;
        if object["status"]["observedGeneration"] == object["metadata"]["generation"] {
            return Ok(());
        }
        Err(format!("the status is {}", object["status"]))
    });
    thread::sleep(Duration::from_secs(10));
    assert!(namespace.pods("done").is_empty());
    let after = namespace.get("datjob", "done").expect("the job exists");
    assert_eq!(after["status"]["results"], before["status"]["results"]);
    assert_eq!(job::condition(&after, "Stalled").expect("the condition exists")["status"], "False");
    assert_eq!(after["status"]["completionTime"], before["status"]["completionTime"]);
}
