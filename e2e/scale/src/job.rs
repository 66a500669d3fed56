//! Manifests of the benchmark's jobs.

use anyhow::Context as _;
use datjob_api::datjob::{DatJob, DatJobSpec};
use kube::{Resource as _, core::ObjectMeta};
use serde_json::json;

/// Number of jobs in a namespace, like those of a team. For each change of a pod, the disruption controller of
/// Kubernetes matches all PodDisruptionBudgets of its namespace: with thousands in one, it would take most of the processor.
pub const JOBS_PER_NAMESPACE: usize = 100;
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

/// Namespace of the job with this index.
pub fn namespace(index: usize) -> String {
    format!("datjob-scale-{}", index / JOBS_PER_NAMESPACE)
}

/// The namespaces of this number of jobs, each with its number of jobs.
pub fn namespaces(jobs: usize) -> impl Iterator<Item = (String, usize)> {
    (0..jobs)
        .step_by(JOBS_PER_NAMESPACE)
        .map(move |first| (namespace(first), JOBS_PER_NAMESPACE.min(jobs - first)))
}

/// The job with this index.
pub fn indexed(index: usize, replicas: u32, placement: Placement) -> anyhow::Result<DatJob> {
    manifest(&name(index), &namespace(index), replicas, placement)
}

/// A job with a typical manifest.
pub fn manifest(name: &str, namespace: &str, replicas: u32, placement: Placement) -> anyhow::Result<DatJob> {
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
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_matches_the_types() {
        let job = indexed(1, 2, Placement::Nowhere).unwrap();
        assert_eq!(job.spec.pod.node_selector["datjob.io/none"], "none");
        assert_eq!(indexed(1, 1, Placement::Simulated).unwrap().spec.replicas, 1);
    }

    #[test]
    fn every_namespace_has_its_jobs() {
        let found: Vec<_> = namespaces(250).collect();
        let expected = [("datjob-scale-0", 100), ("datjob-scale-1", 100), ("datjob-scale-2", 50)];
        assert_eq!(found, expected.map(|(name, jobs)| (name.to_owned(), jobs)));
        assert_eq!(indexed(249, 1, Placement::Nowhere).unwrap().metadata.namespace, Some(found[2].0.clone()));
        assert_eq!(namespaces(100).count(), 1);
    }
}
