//! The training spec as the trainer reads it.

use datjob_api::{contract, training::Training};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::controller::{identity::Identity, validate::ValidJob};

/// Name of the ConfigMap: another spec has another name, so a pod never sees its spec change.
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
