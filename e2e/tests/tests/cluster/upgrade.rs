//! `helm upgrade` during training, and `helm uninstall`.

use datjob_e2e::{Namespace, OPERATOR_NAMESPACE, checkout, helm, job, kubectl, registry, wait_until};
use serde_json::Value;

fn upgrade(values: &[&str]) {
    let chart = format!("{}/charts/datjob", checkout());
    let mut arguments = vec![
        "upgrade",
        "datjob",
        &chart,
        "-n",
        OPERATOR_NAMESPACE,
        "--reuse-values",
        "--wait",
        "--timeout",
        "3m",
    ];
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(&arguments).expect("the release is upgraded");
}

fn images(pods: &[Value]) -> Vec<String> {
    pods.iter()
        .map(|pod| pod["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned())
        .collect()
}

#[test]
fn an_upgrade_does_not_change_running_pods_and_their_replacements() {
    let namespace = Namespace::exclusive("upgrade");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let mut document = job::small("upgraded");
    // More epochs than the fastest machine trains during two upgrades. The test does not wait for the last one.
    document["spec"]["training"]["schedule"]["epochs"] = 1000.into();
    namespace.apply(&document).expect("the job is accepted");
    namespace.wait_for_epoch("upgraded", 1, 300);
    let pods = namespace.pods("upgraded");
    let template = namespace.get("statefulset", "upgraded").expect("it exists")["spec"]["template"].clone();

    // The upgraded operator would give new pods an image that does not exist.
    upgrade(&["trainerImage.tag=of-another-release"]);
    let epochs_done = || {
        let job = namespace.get("datjob", "upgraded").expect("it exists");
        job["status"]["progress"]["epoch"].as_u64().expect("epochs are done")
    };
    namespace.wait_for_epoch("upgraded", epochs_done() + 1, 300);
    assert_eq!(job::pod_identities(&namespace.pods("upgraded")), job::pod_identities(&pods));

    namespace.kubectl(&["delete", "pod", "upgraded-1", "--wait=false"]).expect("the pod is deleted");
    namespace.wait_until_restarted("upgraded", 1, 300);
    let object = namespace.wait_for_epoch("upgraded", epochs_done() + 1, 300);
    upgrade(&["trainerImage.tag="]);
    assert_eq!(object["status"]["restarts"]["total"], 1, "{}", object["status"]);
    assert_eq!(object["status"]["attempt"], 1);
    let after = namespace.get("statefulset", "upgraded").expect("it exists")["spec"]["template"].clone();
    assert_eq!(after, template);
    assert!(images(&pods).iter().all(|image| image.starts_with(&registry())), "{pods:?}");
}

#[test]
fn gpus_require_an_installation_with_gpus_enabled() {
    let namespace = Namespace::exclusive("gpu");
    namespace.apply(&job::claim("checkpoints")).expect("the claim is created");
    let with_gpus = |name: &str| {
        let mut document = job::small(name);
        document["spec"]["pod"]["resources"]["limits"]["nvidia.com/gpu"] = 64.into();
        document
    };
    namespace.apply(&with_gpus("gpus")).expect("the job is accepted");
    let object = namespace.wait_for_condition("gpus", "Stalled", 60);
    let stalled = job::condition(&object, "Stalled").expect("it exists");
    assert_eq!(stalled["reason"], "GpusDisabled");
    assert!(stalled["message"].to_string().contains("gpu.enabled=true"), "{stalled}");
    assert!(namespace.get("statefulset", "gpus").is_none());

    // The job continues. No node has 64 GPUs, so the status names the missing resource.
    upgrade(&["gpu.enabled=true", "gpu.trainerImage.repository=example.com/trainer-cuda"]);
    let message = wait_until("reason WaitingForCapacity", 120, || {
        let object = namespace.get("datjob", "gpus").ok_or("the job does not exist")?;
        match job::condition(&object, "Reconciling") {
            Some(found) if found["reason"] == "WaitingForCapacity" => Ok(found["message"].to_string()),
            _ => Err(format!("the status is {}", object["status"])),
        }
    });
    upgrade(&["gpu.enabled=false"]);
    assert!(message.contains("nvidia.com/gpu"), "{message}");
    let pods = namespace.pods("gpus");
    assert!(images(&pods).iter().all(|image| image.starts_with("example.com/trainer-cuda:")), "{pods:?}");
    let env = pods[0]["spec"]["containers"][0]["env"].as_array().expect("variables");
    let value = |name: &str| env.iter().find(|one| one["name"] == name).map(|one| one["value"].clone());
    assert_eq!(value("DATJOB_GPUS"), Some("64".into()));
    assert_eq!(value("DATJOB_WORKERS_PER_POD"), Some("64".into()));
}

#[test]
fn uninstalling_the_operator_keeps_jobs_and_their_definition() {
    let namespace = Namespace::exclusive("uninstall");
    let mut document = job::small("kept");
    document["spec"]["pod"]["nodeSelector"] = serde_json::json!({"datjob.io/none": "none"});
    namespace.apply(&document).expect("the job is accepted");
    wait_until("StatefulSet of the job", 60, || match namespace.get("statefulset", "kept") {
        Some(_) => Ok(()),
        None => Err("it has no StatefulSet".to_owned()),
    });
    let values = helm(&["get", "values", "datjob", "-n", OPERATOR_NAMESPACE, "-o", "json"]).expect("values");
    helm(&["uninstall", "datjob", "-n", OPERATOR_NAMESPACE, "--wait"]).expect("the release is uninstalled");
    assert!(kubectl(&["get", "crd", "datjobs.datjob.io"], "").is_ok());
    assert!(namespace.get("datjob", "kept").is_some());
    let left =
        kubectl(&["get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=datjob"], "");
    assert_eq!(left.expect("roles can be listed").trim(), "");

    let file = std::env::temp_dir().join(format!("datjob-e2e-values-{}.json", std::process::id()));
    std::fs::write(&file, values).expect("the values are kept");
    let chart = format!("{}/charts/datjob", checkout());
    let path = file.to_str().expect("a path");
    helm(&["install", "datjob", &chart, "-n", OPERATOR_NAMESPACE, "-f", path, "--wait", "--timeout", "3m"])
        .expect("the release is installed again, over the CRD that was kept");
    std::fs::remove_file(&file).expect("the file is removed");
}
