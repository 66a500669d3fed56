//! Jobs for unit tests, from the manifests under `tests/fixtures`, as an API server would have them.

use datjob_api::datjob::DatJob;

/// The shortest manifest.
pub(crate) fn minimal() -> DatJob {
    parse(include_str!("../tests/fixtures/minimal.yaml"))
}

fn parse(manifest: &str) -> DatJob {
    let mut job: DatJob = serde_yaml::from_str(manifest).unwrap();
    job.metadata.namespace = Some("team".into());
    job.metadata.uid = Some("2f9d3c1e-0000-4000-8000-000000000001".into());
    job.metadata.generation = Some(1);
    job
}
