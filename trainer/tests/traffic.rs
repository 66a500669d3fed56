//! The bytes that a run says it sent against those that its network carried. Each run has a network namespace of its own,
//! whose loopback interface counts.

use std::{fs, process::Command};

use serde_json::{Value, json};

#[path = "common/data.rs"]
mod data;

fn manifest(communication: &Value, overlap: bool) -> Value {
    json!({
        "apiVersion": "datjob.io/v1alpha1",
        "kind": "DatJob",
        "metadata": {"name": "traffic"},
        "spec": {
            "replicas": 2,
            "checkpoints": {"persistentVolumeClaim": {"claimName": "unused"}},
            "training": {
                "model": {"architecture": "small-cnn"},
                "data": {
                    "dataset": "mnist",
                    "source": {"volume": {"persistentVolumeClaim": {"claimName": "unused"}}},
                    "validation": {"count": 500}
                },
                "threatModel": {"epsilon": "0.1"},
                "attack": {"fgsm": {}, "overlap": overlap},
                "communication": communication,
                "schedule": {"epochs": 1, "batchSize": 128},
                "evaluation": {"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 1}}]}
            }
        }
    })
}

/// Bytes that both ranks say they sent in all steps, and bytes that the network carried.
fn told_and_carried(manifest: &Value) -> (f64, f64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("job.yaml"), manifest.to_string()).unwrap();
    // An ordinary user is root in a user namespace of its own.
    let namespaces = "--net --user --map-root-user".split(' ');
    let script = "ip link set lo up && \"$@\" > /dev/null && exec cat /proc/self/net/dev";
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_dat-trainer"), "run"])
        .arg(path.join("job.yaml"))
        .args(["--workers", "2", "--data"])
        .arg(data::squares())
        .arg("--checkpoints")
        .arg(path)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    let interfaces = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // "lo:" and what it received: bytes first.
    let loopback = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    let carried = loopback.split_whitespace().next().unwrap().parse().unwrap();

    let results: Value =
        serde_json::from_slice(&fs::read(path.join("traffic/results.json")).unwrap()).unwrap();
    let history: Value =
        serde_json::from_slice(&fs::read(path.join("traffic/history.json")).unwrap()).unwrap();
    let per_step = results["time"]["bytesPerStep"].as_f64().unwrap();
    assert_eq!(history["epochs"][0]["timing"]["bytesPerStep"].as_f64().unwrap(), per_step);
    (2.0 * per_step * history["epochs"][0]["step"].as_f64().unwrap(), carried)
}

#[test]
fn a_run_tells_the_bytes_that_its_network_carried() {
    let mut told_before = None;
    for (name, communication, overlap, share) in [
        ("32 bits", json!({}), false, 1.0),
        ("32 bits, overlapped", json!({}), true, 1.0),
        ("8 bits", json!({"compression": {"int8": {}}}), false, 0.2520),
    ] {
        let (told, carried) = told_and_carried(&manifest(&communication, overlap));
        println!("{name}: told {told}, carried {carried}");
        // What comes on top: the first broadcast of the weights, the rendezvous, headers.
        assert!(told <= carried && carried <= 1.02 * told, "{name}: told {told}, carried {carried}");
        let whole = *told_before.get_or_insert(told);
        assert!((told / whole / share - 1.0).abs() < 0.01, "{name}: {told} of {whole}");
    }
}
