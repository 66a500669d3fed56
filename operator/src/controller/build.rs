//! Stage 3: builds the children of a job. Pure. It cannot fail, because `validate` rejects invalid jobs.
//!
//! Equal jobs and tokens give equal objects, byte for byte.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};

use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use super::{attempt::AttemptAction, ownership::ApplyConflict, validate::ValidJob, watch::ANNOTATION_HASH};
use crate::jitter::fnv1a;

mod config_map;
mod disruption_budget;
mod network_policy;
mod pod;
mod service;
mod stateful_set;
mod token;
mod volumes;

pub use token::{AttemptToken, TokenError};

/// Settings of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Trainer image for jobs without an image.
    pub trainer_image: String,
    /// Trainer image for jobs that request GPUs; `None` rejects these jobs.
    pub trainer_cuda_image: Option<String>,
    /// Namespace from which the operator reads reports; `None` outside a cluster.
    pub operator_namespace: Option<String>,
}

impl Settings {
    /// What this installation lacks to start an attempt. A running attempt needs nothing new.
    pub fn missing_for(&self, valid: &ValidJob<'_>, action: AttemptAction) -> Option<ApplyConflict> {
        let starts = matches!(action, AttemptAction::Start(_));
        let lacks_gpus = valid.job.spec.pod.gpus() > 0 && self.trainer_cuda_image.is_none();
        (starts && lacks_gpus).then_some(ApplyConflict::GpusDisabled)
    }
}

/// The children of a job and the action for its attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// The action for the desired attempt.
    pub action: AttemptAction,
    /// The StatefulSet, if the action starts an attempt.
    pub stateful_set: Option<Box<StatefulSet>>,
    /// The training spec.
    pub config_map: ConfigMap,
    /// The headless Service.
    pub service: Service,
    /// The PodDisruptionBudget.
    pub disruption_budget: PodDisruptionBudget,
    /// Name of the NetworkPolicy.
    pub network_policy_name: String,
    /// The NetworkPolicy, if it is enabled.
    pub network_policy: Option<NetworkPolicy>,
}

/// Builds the children of a job. An attempt that starts gets `token`.
pub fn build(
    valid: &ValidJob<'_>,
    action: AttemptAction,
    token: &AttemptToken,
    settings: &Settings,
) -> Children {
    let stateful_set = match action {
        AttemptAction::Start(attempt) => {
            Some(Box::new(stateful_set::stateful_set(valid, attempt, token, settings)))
        }
        _ => None,
    };
    Children {
        action,
        stateful_set,
        config_map: config_map::config_map(valid),
        service: with_hash(service::service(valid.identity)),
        disruption_budget: with_hash(disruption_budget::disruption_budget(valid.identity)),
        network_policy_name: valid.identity.name.clone(),
        network_policy: network_policy::network_policy(valid, settings).map(with_hash),
    }
}

/// Adds the annotation that shows whether an object is up to date.
fn with_hash<K: Resource + Serialize>(mut object: K) -> K {
    let hash = fnv1a(&serde_json::to_vec(&object).unwrap_or_default());
    object.annotations_mut().insert(ANNOTATION_HASH.to_owned(), format!("{hash:016x}"));
    object
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{controller::identity::Identity, testing::minimal};

    #[test]
    fn gpus_that_are_disabled_keep_an_attempt_from_starting() {
        let mut job = minimal();
        let identity = Identity::of(&job).unwrap();
        let mut settings =
            Settings { trainer_image: "i".into(), trainer_cuda_image: None, operator_namespace: None };
        let missing = |job: &_, settings: &Settings, action| {
            let valid = ValidJob { job, identity: &identity, source_ports: BTreeSet::new() };
            settings.missing_for(&valid, action)
        };
        assert_eq!(missing(&job, &settings, AttemptAction::Start(1)), None);
        let limits = serde_json::json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}});
        job.spec.pod = serde_json::from_value(limits).unwrap();
        let disabled = missing(&job, &settings, AttemptAction::Start(2)).unwrap();
        assert!(disabled.reason() == "GpusDisabled" && disabled.message().contains("gpu.enabled=true"));
        assert_eq!(missing(&job, &settings, AttemptAction::Keep), None);
        settings.trainer_cuda_image = Some("cuda".into());
        assert_eq!(missing(&job, &settings, AttemptAction::Start(2)), None);
    }
}
