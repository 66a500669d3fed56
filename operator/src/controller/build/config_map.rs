//! ConfigMap with the training spec. Pure.

use datjob_api::{contract, training::Training};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::controller::{identity::Identity, validate::ValidJob};

/// Name of the ConfigMap. It depends on the spec, so the spec of a pod never changes.
pub(super) fn name(identity: &Identity, training: &Training) -> String {
    let hash = training.hash();
    format!("{}-{}", identity.name, &hash[..10])
}

pub(super) fn config_map(valid: &ValidJob<'_>) -> ConfigMap {
    let training = &valid.job.spec.training;
    ConfigMap {
        metadata: valid.identity.child(name(valid.identity, training)),
        immutable: Some(true),
        data: Some([(contract::TRAINING_FILE.to_owned(), training.to_json())].into()),
        ..ConfigMap::default()
    }
}
