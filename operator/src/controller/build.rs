//! Stage 3: builds the children of a job. Pure. It cannot fail, because `validate` rejects invalid jobs.
//!
//! Equal jobs give equal objects, byte for byte.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};

use super::{attempt::AttemptAction, validate::ValidJob};

mod config_map;
mod disruption_budget;
mod network_policy;
mod pod;
mod service;
mod stateful_set;
mod volumes;

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

/// Builds the children of a job.
pub fn build(valid: &ValidJob<'_>, action: AttemptAction, settings: &Settings) -> Children {
    let stateful_set = match action {
        AttemptAction::Start(attempt) => Some(Box::new(stateful_set::stateful_set(valid, attempt, settings))),
        _ => None,
    };
    Children {
        action,
        stateful_set,
        config_map: config_map::config_map(valid),
        service: service::service(valid.identity),
        disruption_budget: disruption_budget::disruption_budget(valid.identity),
        network_policy_name: valid.identity.name.clone(),
        network_policy: network_policy::network_policy(valid, settings),
    }
}
