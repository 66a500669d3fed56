//! Stage 3: the children of a job. Pure, and cannot fail: what could go wrong was refused by `validate`.
//!
//! Equal jobs give equal objects, field by field and in the same order.

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

/// What the operator's installation says about all jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The trainer's image where a job names none.
    pub trainer_image: String,
    /// The same for jobs that ask for GPUs; none where such jobs are refused.
    pub trainer_cuda_image: Option<String>,
    /// The operator's own namespace, from which it reads reports; unknown where it runs outside the cluster.
    pub operator_namespace: Option<String>,
}

/// What a job is made of, and what is to be done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// What the wanted attempt asks for.
    pub action: AttemptAction,
    /// The StatefulSet of the attempt, where it is to be written.
    pub stateful_set: Option<Box<StatefulSet>>,
    /// The training spec.
    pub config_map: ConfigMap,
    /// The headless Service.
    pub service: Service,
    /// The limit on voluntary disruptions.
    pub disruption_budget: PodDisruptionBudget,
    /// Name of the NetworkPolicy.
    pub network_policy_name: String,
    /// The NetworkPolicy, where one is wanted.
    pub network_policy: Option<NetworkPolicy>,
}

/// The children that a job should have.
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
