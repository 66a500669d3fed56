//! Two installations of the operator whose scopes overlap.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use datjob_e2e::{Namespace, OPERATOR_NAMESPACE, checkout, helm, job, operator_metric, wait_until};
use serde_json::{Value, json};

const FIRST: &str = "datjob-system/datjob-operator";
/// The namespace of the test, which the second installation watches and runs in.
const NAMESPACE: &str = "datjob-e2e-installations";
const SECOND: &str = "datjob-e2e-installations/second-operator";

/// A job whose pods no node accepts.
fn waiting(name: &str, managed_by: Option<&str>) -> Value {
    let mut document = job::small(name);
    document["spec"]["pod"]["nodeSelector"] = json!({"datjob.io/none": "none"});
    if let Some(managed_by) = managed_by {
        document["spec"]["managedBy"] = managed_by.into();
    }
    document
}

/// Installs a second release with the images and options of the first one.
fn install_second() {
    let values = helm(&["get", "values", "datjob", "-n", OPERATOR_NAMESPACE, "-o", "json"]).expect("values");
    let file = std::env::temp_dir().join(format!("datjob-e2e-second-{}.json", std::process::id()));
    fs::write(&file, values).expect("the values are kept");
    let (chart, path) = (format!("{}/charts/datjob", checkout()), file.to_str().expect("a path"));
    let watch = format!("watch.namespace={NAMESPACE}");
    let mut arguments =
        vec!["install", "second", &chart, "-n", NAMESPACE, "-f", path, "--wait", "--timeout", "3m"];
    for value in [watch.as_str(), "crds.enabled=false", "rbac.aggregate=false", "replicas=1"] {
        arguments.extend(["--set", value]);
    }
    helm(&arguments).expect("a second release is installed");
    fs::remove_file(&file).expect("the file is removed");
}

fn manager(job: &Value) -> &str {
    job["status"]["managedBy"].as_str().unwrap_or_default()
}

fn wait_for_manager(namespace: &Namespace, name: &str, expected: &str) {
    wait_until(&format!("{expected} as the manager of {name}"), 60, || {
        let object = namespace.get("datjob", name).ok_or("the job does not exist")?;
        if manager(&object) == expected { Ok(()) } else { Err(format!("it is {:?}", manager(&object))) }
    });
}

/// The namespace of the operator that a job's NetworkPolicy admits. Each installation writes its own.
fn admitted(namespace: &Namespace, name: &str) -> Option<String> {
    let policy = namespace.get("networkpolicy", name)?;
    let labels = &policy["spec"]["ingress"][1]["from"][0]["namespaceSelector"]["matchLabels"];
    labels["kubernetes.io/metadata.name"].as_str().map(str::to_owned)
}

fn wait_until_admitted(namespace: &Namespace, name: &str, expected: &str) {
    wait_until(&format!("NetworkPolicy of {name} for {expected}"), 60, || match admitted(namespace, name) {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("it admits {found:?}")),
    });
}

#[test]
fn each_job_belongs_to_one_of_two_installations() {
    let namespace = Namespace::exclusive("installations");
    namespace.apply(&waiting("found", None)).expect("the job is accepted");
    wait_for_manager(&namespace, "found", FIRST);
    wait_until_admitted(&namespace, "found", OPERATOR_NAMESPACE);
    install_second();

    namespace.apply(&waiting("named", Some(SECOND))).expect("the job is accepted");
    namespace.apply(&waiting("queued", Some("example.com/queue"))).expect("the job is accepted");
    wait_for_manager(&namespace, "named", SECOND);
    wait_until_admitted(&namespace, "named", NAMESPACE);
    let refusal = namespace.apply(&waiting("named", Some(FIRST))).expect_err("spec.managedBy is immutable");
    assert!(refusal.contains("spec.managedBy is immutable"), "{refusal}");
    let refusal = namespace.apply(&waiting("free", Some("no-prefix"))).expect_err("it has no prefix");
    assert!(refusal.contains("spec.managedBy"), "{refusal}");

    // Both installations find these at the same time.
    let names: Vec<String> = (0..10).map(|index| format!("contested-{index}")).collect();
    let jobs: Vec<Value> = names.iter().map(|name| waiting(name, None)).collect();
    namespace.apply(&json!({"apiVersion": "v1", "kind": "List", "items": jobs})).expect("they are accepted");
    let owners = || -> BTreeMap<String, String> {
        let object = |name: &String| namespace.get("datjob", name).expect("the job exists");
        names.iter().map(|name| (name.clone(), manager(&object(name)).to_owned())).collect()
    };
    let first_owners = wait_until("managers of all jobs", 60, || {
        let found = owners();
        if found.values().all(|owner| !owner.is_empty()) { Ok(found) } else { Err(format!("{found:?}")) }
    });
    thread::sleep(Duration::from_secs(15));
    assert_eq!(owners(), first_owners);
    for (name, owner) in &first_owners {
        assert!([FIRST, SECOND].contains(&owner.as_str()), "{name}: {owner}");
        let operator = owner.split('/').next().map(str::to_owned);
        assert_eq!(admitted(&namespace, name), operator, "{name}");
    }

    let found = namespace.get("datjob", "found").expect("the job exists");
    assert_eq!(manager(&found), FIRST);
    assert_eq!(admitted(&namespace, "found").as_deref(), Some(OPERATOR_NAMESPACE));
    let queued = namespace.get("datjob", "queued").expect("the job exists");
    assert_eq!((&queued["status"]["observedGeneration"], manager(&queued)), (&json!(-1), ""));
    assert!(namespace.get("statefulset", "queued").is_none());
    let of_first = first_owners.values().filter(|owner| *owner == FIRST).count() as f64;
    let foreign = operator_metric(NAMESPACE, "second", "datjob_operator_foreign_jobs");
    assert!((foreign - of_first - 2.0).abs() < 0.5, "{foreign} jobs of others, {of_first} of them contested");

    // A person hands over a job.
    let patch = json!({"status": {"managedBy": SECOND}}).to_string();
    let arguments = ["patch", "datjob", "found", "--subresource=status", "--type=merge", "-p", &patch];
    namespace.kubectl(&arguments).expect("an administrator may change the status");
    wait_until_admitted(&namespace, "found", NAMESPACE);
    namespace.kubectl(&["delete", "networkpolicy", "found"]).expect("the policy is deleted");
    wait_until_admitted(&namespace, "found", NAMESPACE);
    assert_eq!(manager(&namespace.get("datjob", "found").expect("the job exists")), SECOND);
    helm(&["uninstall", "second", "-n", NAMESPACE, "--wait"]).expect("the second release is uninstalled");
}
