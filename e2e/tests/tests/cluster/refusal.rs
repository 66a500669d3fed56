//! Manifests that `kubectl apply` or the operator rejects.

use std::{thread, time::Duration};

use datjob_e2e::{Namespace, job, kubectl, wait_until};
use serde_json::{Value, json};

/// Sets the value at a path of a document.
fn set(document: &mut Value, path: &str, value: Value) {
    *path.split('.').fold(document, |value, key| &mut value[key]) = value;
}

#[test]
fn rejects_invalid_manifests_and_names_the_field() {
    let namespace = Namespace::new("invalid");
    let training = "spec.training";
    for (path, value, expected) in [
        ("threatModel.epsilon", json!("8"), "spec.training.threatModel.epsilon"),
        (
            "threatModel.epsilon",
            json!("0"),
            "spec.training.threatModel.epsilon: Invalid value: \"0\": expected a number greater than 0",
        ),
        (
            "threatModel.epsilon",
            json!("eight"),
            "spec.training.threatModel.epsilon: Invalid value: \"eight\": expected a number greater than 0",
        ),
        ("threatModel.norm", json!("L7"), "spec.training.threatModel.norm"),
        ("attack", json!({"fgsm": {}, "pgd": {}}), "set exactly one of: pgd, fgsm"),
        ("attack", json!({}), "spec.training.attack"),
        ("attack", json!({"pgd": {"step": 3}}), "unknown field \"spec.training.attack.pgd.step\""),
        ("attack", json!({"pgd": {"stepSize": "2"}}), "spec.training.attack"),
        (
            "communication",
            json!({"compression": {"int8": {"sides": 3}}}),
            "communication.compression.int8.sides",
        ),
        (
            "communication",
            json!({"compression": {"int8": {}, "fp16": {}}}),
            "exactly one of: int8, fp16, bf16",
        ),
        ("attack", json!({"pgd": {"stepSize": "200"}}), "spec.training.attack.pgd.stepSize"),
        (
            "model.architecture",
            json!("wide-resnet-27-10"),
            "spec.training.model.architecture: Invalid value: \"wide-resnet-27-10\": expected small-cnn",
        ),
        (
            "model.architecture",
            json!("resnet1"),
            "spec.training.model.architecture: Invalid value: \"resnet1\": expected small-cnn",
        ),
        (
            "data.source",
            json!({"http": {"url": "ftp://host/x.tar", "sha256": "0".repeat(64)}}),
            "spec.training.data.source.http.url: Invalid value: \"ftp://host/x.tar\": expected a URL",
        ),
        (
            "data.source",
            json!({"http": {"url": "https://host/x.tar", "sha256": "ABC"}}),
            "spec.training.data.source.http.sha256: Invalid value: \"ABC\": expected 64 lower-case hexadecimal digits",
        ),
        (
            "data.source",
            json!({"objectStore": {"url": "s3://Bucket/prefix"}}),
            "spec.training.data.source.objectStore.url: Invalid value: \"s3://Bucket/prefix\": expected s3://bucket/prefix",
        ),
        (
            "data.source",
            json!({"objectStore": {"url": "s3://bucket", "endpoint": "minio:9000"}}),
            "spec.training.data.source.objectStore.endpoint: Invalid value: \"minio:9000\": expected a URL",
        ),
        ("data.dataset", json!("imagenet"), "spec.training.data.dataset"),
        ("schedule.batchSize", json!(1), "spec.training.schedule.batchSize"),
        ("schedule.epochs", json!(0), "spec.training.schedule.epochs"),
        (
            "schedule.warmupEpochs",
            json!(1),
            "warmupEpochs must be at most epochs and requires decay.piecewise",
        ),
        ("optimizer.sgd.momentum", json!(1.5), "spec.training.optimizer.sgd.momentum"),
        ("evaluation.final", json!([]), "spec.training.evaluation.final"),
        ("seed", json!(-1), "spec.training.seed"),
    ] {
        let mut document = job::small("invalid");
        set(&mut document, &format!("{training}.{path}"), value.clone());
        let refusal = namespace.apply(&document).expect_err(&format!("{path} = {value} is accepted"));
        assert!(refusal.contains(expected), "{path} = {value}: {refusal}");
    }
}

#[test]
fn rejects_invalid_fields_beside_the_training_and_names_them() {
    let namespace = Namespace::new("invalid-job");
    for (path, value, expected) in [
        ("spec.replicas", json!(0), "spec.replicas"),
        ("spec.workersPerPod", json!(0), "spec.workersPerPod"),
        ("spec.checkpoints", json!({}), "spec.checkpoints"),
        ("spec.pod.runAsUser", json!(0), "spec.pod.runAsUser"),
        (
            "spec.pod.resources.limits.memory",
            json!("2GB"),
            "spec.pod.resources.limits[memory]: Invalid value: \"2GB\": expected a quantity, for example 500m (CPU) or 2Gi (memory)",
        ),
        (
            "spec.pod.sharedMemory",
            json!("1 Gi"),
            "spec.pod.sharedMemory: Invalid value: \"1 Gi\": expected a quantity",
        ),
        ("spec.pod.volumes", json!([{"name": "x", "hostPath": {"path": "/"}}]), "hostPath"),
        (
            "spec.pod.volumes",
            json!([{"name": "A", "emptyDir": {}}]),
            "spec.pod.volumes[0].name: Invalid value: \"A\": expected lower-case letters",
        ),
        ("spec.managedBy", json!("me"), "spec.managedBy: Invalid value: \"me\": expected NAMESPACE/NAME"),
        ("metadata.name", json!("1st"), "metadata.name must have at most 52 lower-case letters"),
        ("metadata.name", json!("a".repeat(53)), "metadata.name must have at most 52 lower-case letters"),
    ] {
        let mut document = job::small("invalid");
        set(&mut document, path, value.clone());
        let refusal = namespace.apply(&document).expect_err(&format!("{path} = {value} is accepted"));
        assert!(refusal.contains(expected), "{path} = {value}: {refusal}");
    }
}

/// Applies a small job with these changes below `prefix`, and checks that the refusal has the expected part.
fn assert_refused(namespace: &Namespace, prefix: &str, changes: &[(&str, Value)], expected: &str) {
    let mut document = job::small("invalid");
    for (path, value) in changes {
        set(&mut document, &format!("{prefix}.{path}"), value.clone());
    }
    let refusal = namespace.apply(&document).expect_err(&format!("{changes:?} is accepted"));
    assert!(refusal.contains(expected), "{changes:?}: {refusal}");
}

#[test]
fn rejects_fields_of_the_training_that_contradict_each_other() {
    let namespace = Namespace::new("contradictory");
    let volume = |path: &str| json!({"volume": {"persistentVolumeClaim": {"claimName": "c"}, "path": path}});
    let teacher = |field: &str, value: Value| {
        let mut model = json!({"architecture": "small-cnn"});
        model[field] = value;
        let labels = json!({"teacher": {"model": model, "weights": volume("teacher.pt")}});
        json!({"source": volume("edm.npz"), "labels": labels})
    };
    let (fgsm, pgd) = (("attack", json!({"fgsm": {}})), ("attack", json!({"pgd": {}})));
    let n_fgsm = ("attack", json!({"nFgsm": {}}));
    let l2 = ("threatModel", json!({"norm": "L2", "epsilon": "0.5"}));
    let trades = ("objective", json!({"trades": {}}));
    let mart = ("objective", json!({"mart": {}}));
    let smoothing = ("smoothing", json!({"sigma": 0.25}));
    let target = |name: &str| ("evaluation.target", json!({"attack": name, "accuracy": 40}));
    let cases: [(Vec<(&str, Value)>, &str); 16] = [
        (vec![fgsm.clone(), l2.clone()], "attack.fgsm and attack.nFgsm require threatModel.norm Linf"),
        (vec![n_fgsm.clone(), l2], "attack.fgsm and attack.nFgsm require threatModel.norm Linf"),
        (vec![fgsm.clone(), trades.clone()], "attack.fgsm and attack.nFgsm require threatModel.norm Linf"),
        (vec![n_fgsm, mart], "attack.fgsm and attack.nFgsm require threatModel.norm Linf"),
        (vec![fgsm, smoothing.clone()], "attack.fgsm and attack.nFgsm require threatModel.norm Linf"),
        (vec![pgd.clone(), trades, smoothing], "smoothing requires objective.crossEntropy"),
        (
            vec![pgd, ("catastrophicOverfitting", json!({}))],
            "catastrophicOverfitting requires attack.fgsm or attack.nFgsm",
        ),
        (vec![("data.imageSize", json!(64))], "imageSize requires dataset image-folder or webdataset"),
        (
            vec![("data.augmentation", json!({"crop": 2, "randomResizedCrop": {}}))],
            "crop and randomResizedCrop are mutually exclusive",
        ),
        (
            vec![
                ("data.dataset", json!("webdataset")),
                ("data.additional", json!({"source": volume("edm.npz")})),
            ],
            "additional is unsupported with dataset image-folder and webdataset",
        ),
        (
            vec![("data.additional", teacher("stem", json!("ImageNet")))],
            "stem requires architecture resnet18",
        ),
        (
            vec![("data.additional", teacher("initialWeights", json!({"source": volume("w.pt")})))],
            "unknown field \"spec.training.data.additional.labels.teacher.model.initialWeights\"",
        ),
        (vec![target("pgd-20")], "target.attack must be the name of an attack of evaluation.final"),
        (vec![("data.source", volume("../other"))], "path must be relative to the root of the volume"),
        (
            vec![("model.initialWeights", json!({"source": volume("/w.pt")}))],
            "path must be relative to the root of the volume",
        ),
        (
            vec![(
                "data.source",
                json!({"http": {"url": "https://me:secret@host/x.tar", "sha256": "0".repeat(64)}}),
            )],
            "spec.training.data.source.http.url",
        ),
    ];
    for (changes, expected) in cases {
        assert_refused(&namespace, "spec.training", &changes, expected);
    }
}

#[test]
fn rejects_reserved_and_duplicate_names_in_pods() {
    let namespace = Namespace::new("reserved");
    let empty_dir = |name: &str| json!({"name": name, "emptyDir": {}});
    for (field, value, expected) in [
        ("imagePullPolicy", json!("always"), "spec.pod.imagePullPolicy: Unsupported value: \"always\""),
        (
            "env",
            json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
            "spec.pod.env[1]: Duplicate value",
        ),
        (
            "env",
            json!([{"name": "DATJOB_ATTEMPT", "value": "7"}]),
            "env names that start with DATJOB_ are reserved",
        ),
        ("labels", json!({"app.kubernetes.io/name": "x"}), "labels under datjob.io, app.kubernetes.io"),
        ("labels", json!({"datjob.io/job-uid": "x"}), "labels under datjob.io, app.kubernetes.io"),
        ("labels", json!({"team.datjob.io/x": "x"}), "labels under datjob.io, app.kubernetes.io"),
        ("labels", json!({"controller-revision-hash": "x"}), "labels under datjob.io, app.kubernetes.io"),
        ("annotations", json!({"datjob.io/attempt": "1"}), "annotations under datjob.io are reserved"),
        ("annotations", json!({"team.datjob.io/x": "1"}), "annotations under datjob.io are reserved"),
        ("volumes", json!([empty_dir("a"), empty_dir("a")]), "spec.pod.volumes[1]: Duplicate value"),
        ("volumes", json!([empty_dir("datjob-data")]), "volume names that start with datjob- are reserved"),
    ] {
        assert_refused(&namespace, "spec.pod", &[(field, value)], expected);
    }
}

#[test]
fn accepts_names_that_are_not_reserved_and_all_names_of_attacks_as_targets() {
    let namespace = Namespace::new("accepted");
    let mut document = job::small("accepted");
    let pod = &mut document["spec"]["pod"];
    pod["nodeSelector"] = json!({"datjob.io/none": "none"});
    pod["labels"] =
        json!({"team": "a", "example.com/datjob.io": "b", "notdatjob.io/x": "c", "datjob.io": "d"});
    pod["annotations"] = json!({"app.kubernetes.io/x": "y"});
    pod["env"] = json!([{"name": "DATJOB_LOG", "value": "debug"}, {"name": "A", "value": "1"}]);
    pod["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    pod["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    document["spec"]["training"]["evaluation"]["final"] = json!([
        {"pgd": {"steps": 2}}, {"pgd": {"steps": 50, "restarts": 10}}, {"cw": {"steps": 5, "restarts": 1}},
        {"apgdCe": {}}, {"apgdT": {"targets": 1}}, {"fabT": {}}, {"square": {"queries": 7}}, {"autoAttack": {}}
    ]);
    let names =
        ["pgd-2", "pgd-50-10", "cw-5", "apgd-ce-100", "apgd-t-100", "fab-t-100-9", "square-7", "autoattack"];
    for name in names {
        document["metadata"]["name"] = format!("accepted-{name}").into();
        document["spec"]["training"]["evaluation"]["target"] = json!({"attack": name, "accuracy": 40});
        namespace.apply(&document).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
    }
}

#[test]
fn rejects_changes_of_immutable_fields() {
    let namespace = Namespace::new("immutable");
    let mut document = job::small("immutable");
    document["spec"]["pod"]["nodeSelector"] = json!({"datjob.io/none": "none"});
    namespace.apply(&document).expect("the job is accepted");
    for (path, value) in [
        ("spec.training.seed", json!(7)),
        ("spec.training.attack", json!({"fgsm": {"stepSize": "0.1"}})),
        ("spec.replicas", json!(3)),
        ("spec.workersPerPod", json!(2)),
        ("spec.pod.runAsUser", json!(1000)),
        ("spec.checkpoints.persistentVolumeClaim.claimName", json!("other")),
    ] {
        let mut changed = document.clone();
        set(&mut changed, path, value);
        let refusal = namespace.apply(&changed).expect_err(&format!("{path} may change"));
        let field = path.split('.').nth(1).expect("a path has two parts");
        assert!(refusal.contains(&format!("spec.{field}")), "{path}: {refusal}");
    }
    let mut changed = document.clone();
    set(&mut changed, "spec.lifecycle", json!({"maxRestarts": 1}));
    set(&mut changed, "spec.networkPolicy", json!({"enabled": false}));
    namespace.apply(&changed).expect("lifecycle and networkPolicy may change");
}

/// Changes the definition as another release would, and returns the previous one. Helm's field manager avoids a conflict
/// in the next upgrade.
fn change_definition(change: impl FnOnce(&mut Value)) -> Value {
    let text =
        kubectl(&["get", "crd", "datjobs.datjob.io", "-o", "json"], "").expect("the definition exists");
    let live: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    let metadata = &live["metadata"];
    let before = json!({
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {"name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"]},
        "spec": live["spec"]
    });
    let mut after = before.clone();
    change(&mut after);
    let arguments = ["apply", "--server-side", "--field-manager=helm", "--force-conflicts", "-f", "-"];
    kubectl(&arguments, &after.to_string()).expect("the definition is changed");
    before
}

#[test]
fn a_status_of_another_release_does_not_stop_a_job() {
    let namespace = Namespace::exclusive("status");
    let mut document = job::small("of-another-release");
    document["spec"]["pod"]["nodeSelector"] = json!({"datjob.io/none": "none"});
    namespace.apply(&document).expect("the job is accepted");
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/failure/properties/reason";
    let before = change_definition(|definition| {
        let reason = definition.pointer_mut(path).and_then(Value::as_object_mut).expect("the field exists");
        reason.remove("enum").expect("the field is an enum");
    });
    let patch = r#"{"status":{"failure":{"reason":"OfAnotherRelease","message":"unknown here"}}}"#;
    let arguments =
        ["patch", "datjob", "of-another-release", "--subresource=status", "--type=merge", "-p", patch];
    // Until the API server uses the new schema.
    let patched = (0..60).any(|_| {
        let accepted = namespace.kubectl(&arguments).is_ok();
        if !accepted {
            thread::sleep(Duration::from_secs(1));
        }
        accepted
    });
    change_definition(|definition| *definition = before);
    assert!(patched, "the patched definition accepts it");
    document["spec"]["lifecycle"] = json!({"maxRestarts": 7});
    namespace.apply(&document).expect("lifecycle may change");
    wait_until("reconciliation of the change", 60, || {
        let object = namespace.get("datjob", "of-another-release").ok_or("the job does not exist")?;
        let status = &object["status"];
        let undecodable =
            job::condition(&object, "Ready").is_some_and(|ready| ready["reason"] == "Undecodable");
        if status["observedGeneration"] == object["metadata"]["generation"] && !undecodable {
            return Ok(());
        }
        Err(format!("the status is {status}"))
    });
}

#[test]
fn an_undecodable_job_is_stalled() {
    let namespace = Namespace::exclusive("undecodable");
    let training = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/training";
    let before = change_definition(|definition| {
        let norm = format!("{training}/properties/threatModel/properties/norm");
        let norm = definition.pointer_mut(&norm).and_then(Value::as_object_mut).expect("the field exists");
        norm.remove("enum").expect("the field is an enum");
    });
    let mut document = job::small("of-another-release");
    document["spec"]["training"]["threatModel"]["norm"] = "L7".into();
    // FGSM requires Linf.
    document["spec"]["training"]["attack"] = json!({"pgd": {"steps": 1}});
    let accepted = namespace.apply(&document);
    change_definition(|definition| *definition = before);
    accepted.expect("the patched definition accepts it");
    let object = namespace.wait_for_condition("of-another-release", "Stalled", 60);
    let stalled = job::condition(&object, "Stalled").expect("the condition exists");
    assert_eq!(stalled["reason"], "Undecodable");
    let message = stalled["message"].as_str().expect("a sentence");
    assert!(message.contains("L7"), "{message}");
    assert!(namespace.get("statefulset", "of-another-release").is_none());
}
