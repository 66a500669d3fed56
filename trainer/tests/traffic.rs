//! The bytes that a run says it sent against those that its network carried. Each run has a network namespace of its own,
//! whose loopback interface counts.

use serde_json::{Value, json};

#[path = "common/folder.rs"]
mod folder;
#[path = "common/network.rs"]
mod network;
#[path = "common/pictures.rs"]
mod pictures;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "shared with run.rs")]
mod run;

use run::{Run, manifest};

/// Bytes that both ranks say they sent in all steps, and bytes that the network carried.
fn told_and_carried(communication: &Value, overlap: bool) -> (f64, f64) {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["communication"] = communication.clone();
    training["attack"]["overlap"] = overlap.into();
    // Many steps: the weights travel once or twice too.
    training["schedule"] = json!({"epochs": 1, "batchSize": 4});
    training["optimizer"] = json!({"sgd": {"learningRate": 0.001}});
    let run = Run::new(&manifest);
    let trainer = run.command(pictures::pictures());
    let output = network::command("true", &trainer, "cat /proc/self/net/dev").output().unwrap();
    let interfaces = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // "lo:" and what it received: bytes first.
    let loopback = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    let carried = loopback.split_whitespace().next().unwrap().parse().unwrap();

    let per_step = run.json("results.json")["time"]["bytesPerStep"].clone();
    let epoch = run.json("history.json")["epochs"][0].clone();
    assert_eq!(epoch["timing"]["bytesPerStep"], per_step);
    (2.0 * per_step.as_f64().unwrap() * epoch["step"].as_f64().unwrap(), carried)
}

#[test]
fn a_run_tells_the_bytes_that_its_network_carried() {
    let mut told_before = None;
    for (name, communication, overlap, share) in [
        ("32 bits", json!({}), false, 1.0),
        ("32 bits, overlapped", json!({}), true, 1.0),
        ("8 bits", json!({"compression": {"int8": {}}}), false, 0.2520),
    ] {
        let (told, carried) = told_and_carried(&communication, overlap);
        println!("{name}: reported {told}, carried {carried}");
        // What comes on top: the first broadcast of the weights, the rendezvous, headers.
        assert!(told <= carried && carried <= 1.02 * told, "{name}: reported {told}, carried {carried}");
        let whole = *told_before.get_or_insert(told);
        assert!((told / whole / share - 1.0).abs() < 0.01, "{name}: {told} of {whole}");
    }
}
