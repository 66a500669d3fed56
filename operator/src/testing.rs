//! Jobs for unit tests, from the manifests in `tests/fixtures`, with the fields that an API server sets.

use datjob_api::datjob::DatJob;

/// The shortest manifest.
pub(crate) fn minimal() -> DatJob {
    parse(include_str!("../tests/fixtures/minimal.yaml"))
}

fn parse(manifest: &str) -> DatJob {
    // Via JSON, because serde_yaml expects tags for enum variants.
    let json: serde_json::Value = serde_yaml::from_str(manifest).unwrap();
    let mut job: DatJob = serde_json::from_value(json).unwrap();
    job.metadata.namespace = Some("team".into());
    job.metadata.uid = Some("2f9d3c1e-0000-4000-8000-000000000001".into());
    job.metadata.generation = Some(1);
    job
}
