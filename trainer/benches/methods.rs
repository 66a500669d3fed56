//! Time per step by attack and objective, and communication time over a link of 1 Gbit/s by gradient exchange. `make bench`
//! runs it.
//!
//! Each row is an epoch of `dat-trainer run` with two workers on synthetic images of MNIST's size (small network). For the
//! second table, each run has a network namespace whose loopback interface is limited to 1 Gbit/s for both directions
//! together.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

#[path = "../tests/common/network_namespace.rs"]
mod network_namespace;
#[path = "../tests/common/synthetic_mnist.rs"]
mod synthetic_mnist;
#[path = "../tests/common/test_directory.rs"]
mod test_directory;

use network_namespace::in_network_namespace;
use synthetic_mnist::synthetic_mnist;

const BATCH: u64 = 256;

fn manifest(change: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "datjob.io/v1alpha1",
        "kind": "DatJob",
        "metadata": {"name": "bench"},
        "spec": {
            "replicas": 2,
            "checkpoints": {"persistentVolumeClaim": {"claimName": "unused"}},
            "training": {
                "model": {"architecture": "small-cnn"},
                "data": {
                    "dataset": "mnist",
                    "source": {"volume": {"persistentVolumeClaim": {"claimName": "unused"}}},
                    // The other 20,000 images are an epoch of 79 steps.
                    "validation": {"count": 40_000}
                },
                "threatModel": {"epsilon": "0.1"},
                "attack": {"fgsm": {}},
                "schedule": {"epochs": 1, "batchSize": BATCH},
                "evaluation": {"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 1}}]}
            }
        }
    });
    for (field, value) in change.as_object().expect("an object") {
        manifest["spec"]["training"][field] = value.clone();
    }
    manifest
}

/// Times of an epoch on rank 0, in seconds.
struct EpochTimes {
    steps: f64,
    seconds: f64,
    attack: f64,
    communication: f64,
    bytes_per_step: f64,
}

fn run(change: &Value, link: Option<&str>) -> EpochTimes {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::write(path.join("job.yaml"), manifest(change).to_string()).expect("a manifest");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dat-trainer"));
    command.arg("run").arg(path.join("job.yaml")).args(["--workers", "2", "--data"]).arg(synthetic_mnist());
    command.arg("--checkpoints").arg(path);
    if let Some(rate) = link {
        let limit = format!("tc qdisc add dev lo root tbf rate {rate} burst 256kb latency 100ms");
        command = in_network_namespace(&limit, &command, "true");
    }
    let output = command.output().expect("a run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_epoch_times(&path.join("bench/history.json"))
}

fn read_epoch_times(path: &Path) -> EpochTimes {
    let history: Value = serde_json::from_slice(&fs::read(path).expect("a history")).expect("JSON");
    let epoch = &history["epochs"][0];
    let number = |value: &Value| value.as_f64().expect("a number");
    EpochTimes {
        steps: number(&epoch["step"]),
        seconds: number(&epoch["timing"]["epochSeconds"]),
        attack: number(&epoch["timing"]["attackSeconds"]),
        communication: number(&epoch["timing"]["communicationSeconds"]),
        bytes_per_step: number(&epoch["timing"]["bytesPerStep"]),
    }
}

fn main() {
    let pgd = json!({"pgd": {"steps": 10}});
    println!("Small network, 28×28, {BATCH} images per step, two workers, one epoch each");
    println!("{:<44} {:>9} {:>7} {:>9}", "attack, objective", "step", "attack", "images/s");
    for (name, change) in [
        ("FGSM, cross-entropy", json!({})),
        ("N-FGSM, cross-entropy", json!({"attack": {"nFgsm": {}}})),
        ("FGSM, cross-entropy, weight perturbation", json!({"weightPerturbation": {"gamma": 0.005}})),
        ("PGD-10, cross-entropy", json!({"attack": pgd})),
        ("PGD-10, TRADES", json!({"attack": pgd, "objective": {"trades": {}}})),
        ("PGD-10, MART", json!({"attack": pgd, "objective": {"mart": {}}})),
        (
            "PGD-10 in l2, cross-entropy",
            json!({"attack": pgd, "threatModel": {"norm": "L2", "epsilon": "1.5"}}),
        ),
    ] {
        let EpochTimes { steps, seconds, attack, .. } = run(&change, None);
        println!(
            "{name:<44} {:>6.1} ms {:>5.0} % {:>9.0}",
            seconds / steps * 1e3,
            100.0 * attack / seconds,
            steps * BATCH as f64 / seconds
        );
    }
    println!("\nThe same over 1 Gbit/s, by gradient exchange");
    println!("{:<44} {:>9} {:>13} {:>13}", "attack, exchange", "step", "not hidden", "sent per step");
    for (name, attack) in [("FGSM", json!({"fgsm": {}})), ("PGD-10", pgd)] {
        let overlapped = |attack: &Value| {
            let mut attack = attack.clone();
            attack["overlap"] = true.into();
            attack
        };
        let compressed = |format: Value| json!({"attack": attack, "communication": {"compression": format}});
        for (exchange, change) in [
            ("32 bits", json!({"attack": attack})),
            ("32 bits, attack.overlap", json!({"attack": overlapped(&attack)})),
            ("fp16", compressed(json!({"fp16": {}}))),
            ("int8, one-sided", compressed(json!({"int8": {"sides": 1}}))),
            ("int8", compressed(json!({"int8": {}}))),
            (
                "int8, attack.overlap",
                json!({"attack": overlapped(&attack), "communication": {"compression": {"int8": {}}}}),
            ),
            (
                "localSteps: 8",
                json!({"attack": attack, "schedule": {"epochs": 1, "batchSize": BATCH, "localSteps": 8}}),
            ),
        ] {
            let EpochTimes { steps, seconds, communication, bytes_per_step, .. } =
                run(&change, Some("1gbit"));
            println!(
                "{:<44} {:>6.1} ms {:>10.1} ms {:>10.0} kB",
                format!("{name}, {exchange}"),
                seconds / steps * 1e3,
                communication / steps * 1e3,
                bytes_per_step / 1e3
            );
        }
    }
}
