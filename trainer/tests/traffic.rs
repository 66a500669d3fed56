//! Compares the bytes that a run reports with the traffic of its network. Each run has a separate network namespace, whose
//! loopback interface counts the traffic.

use serde_json::{Value, json};

#[path = "common/network_namespace.rs"]
mod network_namespace;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/test_directory.rs"]
mod test_directory;

use network_namespace::in_network_namespace;
use run::{Run, manifest};
use synthetic_image_folder::synthetic_image_folder;

/// Bytes of a run.
struct Traffic {
    /// Bytes that both ranks report for all steps.
    reported: f64,
    /// Bytes that the loopback interface received.
    carried: f64,
}

fn measure_traffic(communication: &Value, overlap: bool, local_steps: u32) -> Traffic {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["communication"] = communication.clone();
    training["attack"]["overlap"] = overlap.into();
    // With many steps, the broadcast of the weights is a small part of the traffic.
    training["schedule"] = json!({"epochs": 1, "batchSize": 4, "localSteps": local_steps});
    training["optimizer"] = json!({"sgd": {"learningRate": 0.001}});
    let run = Run::new(&manifest);
    let trainer = run.command(synthetic_image_folder());
    let output = in_network_namespace("true", &trainer, "cat /proc/self/net/dev").output().unwrap();
    let interfaces = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A line has the interface and its counters; received bytes are the first counter.
    let loopback = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    let carried = loopback.split_whitespace().next().unwrap().parse().unwrap();

    let per_step = run.json("results.json")["time"]["bytesPerStep"].clone();
    let epoch = run.json("history.json")["epochs"][0].clone();
    assert_eq!(epoch["timing"]["bytesPerStep"], per_step);
    Traffic { reported: 2.0 * per_step.as_f64().unwrap() * epoch["step"].as_f64().unwrap(), carried }
}

#[test]
fn reported_bytes_match_the_network_traffic() {
    let mut uncompressed = None;
    // The epoch has 950 steps: five local steps exchange the weights 190 times, and weights and momentum at the end of the epoch.
    for (name, communication, overlap, local_steps, share) in [
        ("32 bits", json!({}), false, 1, 1.0),
        ("32 bits, overlapped", json!({}), true, 1, 1.0),
        ("8 bits", json!({"compression": {"int8": {}}}), false, 1, 0.2520),
        ("local steps", json!({}), false, 5, 192.0 / 950.0),
    ] {
        let Traffic { reported, carried } = measure_traffic(&communication, overlap, local_steps);
        println!("{name}: reported {reported}, carried {carried}");
        // The network also carries the first broadcast of the weights, the rendezvous and headers.
        assert!(
            reported <= carried && carried <= 1.02 * reported,
            "{name}: reported {reported}, carried {carried}"
        );
        let uncompressed = *uncompressed.get_or_insert(reported);
        assert!((reported / uncompressed / share - 1.0).abs() < 0.01, "{name}: {reported} of {uncompressed}");
    }
}
