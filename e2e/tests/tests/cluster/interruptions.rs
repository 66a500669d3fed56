//! What passes by itself does not fail a job. What does not pass is named.

use std::{thread, time::Duration};

use datjob_e2e::{Namespace, job, kubectl, wait_until};
use serde_json::{Value, json};

/// How long after a problem appeared no condition may call the job failed. GitOps tools read Stalled as that.
const WATCHED: Duration = Duration::from_secs(20);

fn status_of(object: &Value, condition: &str) -> Value {
    job::condition(object, condition).map_or(Value::Null, |found| found["status"].clone())
}

fn message_of(object: &Value, condition: &str) -> String {
    let found = job::condition(object, condition).expect("the condition exists");
    found["message"].as_str().expect("a sentence").to_owned()
}

/// The message of a job that waits and is neither stalled nor finished.
fn message_of_waiting(object: &Value) -> String {
    let conditions = ["Reconciling", "Stalled", "Finished"].map(|kind| status_of(object, kind));
    assert_eq!(conditions, ["True", "False", "False"], "{object}");
    message_of(object, "Reconciling")
}

#[test]
fn a_job_that_waits_for_capacity_is_reconciling() {
    let namespace = Namespace::new("capacity");
    let mut document = job::small("large");
    document["spec"]["pod"]["resources"] =
        json!({"requests": {"cpu": "1000", "memory": "1Gi"}, "limits": {"cpu": "1000", "memory": "1Gi"}});
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    namespace.apply(&document).expect("the job is accepted");
    namespace.wait_for_reason("large", "WaitingForCapacity", 60);
    thread::sleep(WATCHED);
    let object = namespace.get("datjob", "large").expect("the job exists");
    let message = message_of_waiting(&object);
    assert!(message.contains("Pod large-0 is unschedulable") && message.contains("cpu"), "{message}");
    assert_eq!(object["status"]["attempt"], 1);
}

#[test]
fn evictions_are_disruptions_and_use_up_no_restart() {
    let namespace = Namespace::new("evictions");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("evicted");
    document["spec"]["lifecycle"] = json!({"maxRestarts": 0});
    namespace.apply(&document).expect("the job is accepted");
    namespace.wait_for_epoch("evicted", 1, 300);
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "evicted-1", "namespace": namespace.name()}
    });
    let path = format!("/api/v1/namespaces/{}/pods/evicted-1/eviction", namespace.name());
    kubectl(&["create", "--raw", &path, "-f", "-"], &eviction.to_string()).expect("the pod is evicted");
    let object = namespace.wait_for_condition("evicted", "Complete", 600);
    let restarts = &object["status"]["restarts"];
    assert_eq!((&restarts["disruptions"], &restarts["failures"]), (&1.into(), &0.into()), "{restarts}");
    assert_eq!(restarts["total"], 1);
}

/// A Node without a kubelet: as the API server sees a machine that is lost.
fn lost_node(name: &str) {
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"datjob-e2e/node": name}},
        "spec": {"taints": [{"key": "datjob-e2e/lost", "effect": "NoSchedule"}]}
    });
    kubectl(&["apply", "-f", "-"], &node.to_string()).expect("the node is created");
    let resources = json!({"cpu": "8", "memory": "16Gi", "pods": "20"});
    let status = json!({"status": {"capacity": resources, "allocatable": resources}}).to_string();
    let arguments = ["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status];
    kubectl(&arguments, "").expect("the node has resources");
}

#[test]
fn a_pod_that_a_lost_node_holds_is_named_until_the_node_is_deleted() {
    let namespace = Namespace::new("lost-node");
    let node = "datjob-e2e-lost";
    lost_node(node);
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("held");
    document["spec"]["pod"]["nodeSelector"] = json!({"datjob-e2e/node": node});
    document["spec"]["pod"]["tolerations"] = json!([{"operator": "Exists"}]);
    namespace.apply(&document).expect("the job is accepted");
    wait_until("pod on the lost node", 60, || match namespace.get("pod", "held-1") {
        Some(pod) if pod["spec"]["nodeName"] == node => Ok(()),
        other => Err(format!("the pod is {other:?}")),
    });
    namespace.kubectl(&["delete", "pod", "held-1", "--wait=false"]).expect("the deletion is accepted");

    // The grace period, a minute, and the time to notice it.
    let object = namespace.wait_for_reason("held", "PodNotTerminated", 180);
    let message = message_of(&object, "Stalled");
    for part in
        ["Pod held-1 on node datjob-e2e-lost should have terminated at", "node.kubernetes.io/out-of-service"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(status_of(&object, "Stalled"), "True");

    kubectl(&["delete", "node", node], "").expect("the node is deleted");
    // Kubernetes removes the pods of the node after a minute.
    let object = namespace.wait_for_reason("held", "WaitingForCapacity", 240);
    assert_eq!(status_of(&object, "Stalled"), "False", "{object}");
}

#[test]
fn a_source_that_cannot_be_reached_is_named_while_the_job_waits() {
    let namespace = Namespace::new("source");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("waits");
    // The service has no pods.
    namespace.apply(&job::service("nobody")).expect("the service is created");
    document["spec"]["training"]["data"]["source"] =
        json!({"http": {"url": "http://nobody:8000/fm.tar", "sha256": "0".repeat(64)}});
    namespace.apply(&document).expect("the job is accepted");
    let object = namespace.wait_for_reason("waits", "DataSourceUnavailable", 180);
    let message = message_of_waiting(&object);
    assert!(message.contains("http://nobody:8000/fm.tar"), "{message}");
}
