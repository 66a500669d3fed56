//! The manifest of a DatJob: serializing and parsing an accepted training gives the same hash.
#![no_main]

use datjob_api::manifest;
use datjob_api::{Training, training::Topology};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = datjob_fuzz::with_file(bytes, manifest::read) else { return };
    let training = manifest.spec.training;
    if training.check(Topology { pods: 2, workers: 1, gpus: 0 }).is_ok() {
        let again: Training =
            serde_json::from_str(&training.to_json()).expect("a serialized training can be parsed");
        assert_eq!(again.hash(), training.hash());
    }
});
