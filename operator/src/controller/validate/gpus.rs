//! Requests for GPUs. Pure.

use datjob_api::{datjob::PodOptions, training::Topology};

use super::{InvalidSpec, refuse};

/// Checks that GPUs are requested in whole numbers, in `limits`, and that each has a worker.
pub(super) fn check(pod: &PodOptions, topology: Topology) -> Result<(), InvalidSpec> {
    let requests = pod.resources.requests.iter().flatten();
    let requests = requests.map(|(name, quantity)| (name.as_str(), quantity.0.as_str()));
    let limits: Vec<(&str, &str)> = pod.gpu_resources().collect();
    for (resource, quantity) in
        requests.filter(|(name, _)| PodOptions::is_gpu(name)).chain(limits.iter().copied())
    {
        // Kubernetes requires devices in limits, and in whole numbers.
        if !limits.iter().any(|(name, _)| *name == resource) {
            return refuse("spec.pod.resources.limits", format!("{resource} must be set in limits"));
        }
        if quantity.parse::<u32>().is_err() {
            return refuse(
                "spec.pod.resources.limits",
                format!("invalid quantity {quantity:?} of {resource}: must be a whole number"),
            );
        }
    }
    let Topology { workers, gpus, .. } = topology;
    if workers >= gpus {
        return Ok(());
    }
    refuse(
        "spec.workersPerPod",
        format!(
            "invalid value {workers}: must be at least the number of GPUs per pod ({gpus}); remove the field, or request \
             fewer GPUs"
        ),
    )
}
