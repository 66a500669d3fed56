//! Manifests of small jobs, and accessors for their objects.

use serde_json::{Value, json};

use crate::registry;

/// A PersistentVolumeClaim for checkpoints or data.
pub fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    })
}

/// A job of two pods that trains three epochs in about a minute, with the claim `checkpoints`.
pub fn small(name: &str) -> Value {
    json!({
        "apiVersion": "datjob.io/v1alpha1",
        "kind": "DatJob",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "pod": {
                "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
                "terminationGracePeriodSeconds": 5
            },
            "checkpoints": {"persistentVolumeClaim": {"claimName": "checkpoints"}},
            "training": {
                "model": {"architecture": "small-cnn"},
                "data": {
                    "dataset": "fashion-mnist",
                    "source": {"image": {"reference": format!("{}/fashion-mnist:0.1.0", registry())}},
                    "validation": {"count": 500},
                    "augmentation": {"flip": false}
                },
                "threatModel": {"epsilon": "0.1"},
                "attack": {"fgsm": {}},
                "optimizer": {"sgd": {"learningRate": 0.1}},
                "schedule": {"epochs": 3, "batchSize": 512},
                "evaluation": {"during": {"pgd": {"steps": 2}}, "final": [{"pgd": {"steps": 2}}]}
            }
        }
    })
}

/// A pod of the data image that runs a script with /bin/sh, with the volume at /work.
pub fn script_pod(name: &str, mut volume: Value, script: &str) -> Value {
    volume["name"] = "work".into();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}
            },
            "volumes": [volume],
            "containers": [{
                "name": "main",
                "image": format!("{}/fashion-mnist:0.1.0", registry()),
                "command": ["/bin/sh", "-euc", script],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}
                },
                "volumeMounts": [{"name": "work", "mountPath": "/work"}]
            }]
        }
    })
}

/// A service at port 8000 of the pods with the label `app` of its name.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8000}]}
    })
}

/// The condition of this type.
pub fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    job["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// The names and UIDs of pods, sorted.
pub fn pod_identities(pods: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut identities: Vec<_> =
        pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]))).collect();
    identities.sort();
    identities
}
