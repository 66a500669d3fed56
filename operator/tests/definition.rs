//! `crds/datjob.yaml` is what the types say.

use datjob_api::datjob::{DatJob, definition};

const HELP: &str = "crds/datjob.yaml is stale: write it by `cargo run --release -p datjob-operator -- crd > crds/datjob.yaml`";

#[test]
fn the_definition_in_the_repository_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/datjob.yaml");
    let written = std::fs::read_to_string(path).expect(HELP);
    assert!(written == serde_yaml::to_string(&definition()).unwrap(), "{HELP}");
}

#[test]
fn the_definition_can_be_applied_by_kubectl() {
    // `kubectl apply` keeps the whole object in an annotation of at most 262,144 bytes.
    let size = serde_json::to_string(&definition()).unwrap().len();
    assert!(size < 200_000, "{size} bytes");
    let written = serde_yaml::to_string(&definition()).unwrap().len();
    assert!(written < 200_000, "{written} bytes as YAML");
}

#[test]
fn the_fixtures_are_jobs() {
    for manifest in [include_str!("fixtures/minimal.yaml"), include_str!("fixtures/full.yaml")] {
        let json: serde_json::Value = serde_yaml::from_str(manifest).unwrap();
        serde_json::from_value::<DatJob>(json).unwrap();
    }
}
