//! Manifests of the benchmark's jobs.

use anyhow::Context as _;
use datjob_api::datjob::{DatJob, DatJobSpec};
use kube::{Resource as _, core::ObjectMeta};
use serde_json::json;

/// Namespace of the jobs.
pub const NAMESPACE: &str = "datjob-scale";
/// Pods per job whose pods run nowhere.
pub const REPLICAS: u32 = 2;
/// Label of the simulated node.
pub const SIMULATED_LABEL: &str = "datjob.io/simulated";
/// Claim for checkpoints.
pub const CLAIM: &str = "checkpoints";

/// Where the pods of a job can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On no node.
    Nowhere,
    /// On the simulated node.
    Simulated,
}

/// Name of the job with this index.
pub fn name(index: usize) -> String {
    format!("job-{index}")
}

/// A job with a typical manifest.
pub fn manifest(name: &str, replicas: u32, placement: Placement) -> anyhow::Result<DatJob> {
    let selector = match placement {
        Placement::Nowhere => json!({"datjob.io/none": "none"}),
        Placement::Simulated => json!({SIMULATED_LABEL: "true"}),
    };
    let spec: DatJobSpec = serde_json::from_value(json!({
        "replicas": replicas,
        "pod": {
            "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
            "nodeSelector": selector
        },
        "checkpoints": {"persistentVolumeClaim": {"claimName": CLAIM}},
        "training": {
            "model": {"architecture": "small-cnn"},
            "data": {
                "dataset": "fashion-mnist",
                "source": {"image": {"reference": "localhost/datjob/fashion-mnist:0.1.0"}},
                "validation": {"count": 500},
                "augmentation": {"flip": false}
            },
            "threatModel": {"epsilon": "0.1"},
            "attack": {"fgsm": {}},
            "optimizer": {"sgd": {"learningRate": 0.1}},
            "schedule": {"epochs": 100, "batchSize": 512},
            "evaluation": {"during": {"pgd": {"steps": 2}}, "final": [{"pgd": {"steps": 2}}]}
        }
    }))
    .context("the benchmark's job does not match the API's types")?;
    let mut job = DatJob::new(name, spec);
    *job.meta_mut() = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    };
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_matches_the_types() {
        let job = manifest("job-1", 2, Placement::Nowhere).unwrap();
        assert_eq!(job.spec.pod.node_selector["datjob.io/none"], "none");
        assert_eq!(manifest("job-1", 1, Placement::Simulated).unwrap().spec.replicas, 1);
    }
}
