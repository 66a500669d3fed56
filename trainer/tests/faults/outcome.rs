//! What a job leaves on its checkpoint volume.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The outcome of a job that succeeded. Equal outcomes have the same weights, bit for bit.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The results on the test set, with the SHA-256 of the best weights.
    results: Value,
    /// The weights after the last epoch, with their SHA-256.
    last: Value,
    /// For each epoch that the history has: its number, and the optimizer steps until its end.
    steps: Vec<(u64, u64)>,
}

/// Number of images of an epoch: 4,000 without those that are held out.
const IMAGES: u64 = 3_800;

impl Outcome {
    /// Reads the outcome from the directory of a job. Fails if the weights do not have the SHA-256 in the results, or if an epoch
    /// did not train on each image once.
    pub(crate) fn read(directory: &Path) -> Self {
        let mut document = json(directory, "results.json");
        let [results, last] = ["results", "last"].map(|field| document[field].take());
        let sha256 = |name: &str| hex::encode(Sha256::digest(fs::read(directory.join(name)).unwrap()));
        assert_eq!(results["sha256"], sha256("best.safetensors"));
        assert_eq!(last["sha256"], sha256("last.safetensors"));
        assert_eq!(document["notWritten"], Value::Null, "{document}");
        let history = json(directory, "history.json");
        let number = |record: &Value, field: &str| record[field].as_u64().unwrap();
        let records = history["epochs"].as_array().unwrap();
        let exact =
            json!({"images": IMAGES, "distinctImages": IMAGES, "missingImages": 0, "repeatedImages": 0});
        for record in records {
            assert_eq!(record["samples"], exact, "epoch {}", record["epoch"]);
        }
        let steps = records.iter().map(|record| (number(record, "epoch"), number(record, "step"))).collect();
        Self { results, last, steps }
    }

    /// For each epoch: its number, and the optimizer steps until its end.
    pub(crate) fn steps(&self) -> &[(u64, u64)] {
        &self.steps
    }
}

/// The mean time of an epoch of a job that succeeded, in seconds, without evaluations.
pub(crate) fn seconds_per_epoch(directory: &Path) -> f64 {
    json(directory, "results.json")["time"]["secondsPerEpoch"].as_f64().unwrap()
}

fn json(directory: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(directory.join(name)).unwrap()).unwrap()
}
