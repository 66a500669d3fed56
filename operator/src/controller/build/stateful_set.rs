//! StatefulSet of one attempt. Pure.

use datjob_api::contract;
use k8s_openapi::api::{
    apps::v1::{
        StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
        StatefulSetUpdateStrategy,
    },
    core::v1::PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{AttemptToken, Settings, pod};
use crate::controller::validate::ValidJob;

pub(super) fn stateful_set(
    valid: &ValidJob<'_>,
    attempt: u32,
    token: &AttemptToken,
    settings: &Settings,
) -> StatefulSet {
    let identity = valid.identity;
    let spec = &valid.job.spec;
    let attempt_annotation = (contract::ANNOTATION_ATTEMPT.to_owned(), attempt.to_string());
    let mut metadata = identity.child(&identity.name);
    metadata.annotations = Some([attempt_annotation.clone()].into());

    let mut labels = spec.pod.labels.clone();
    labels.extend(identity.labels());
    let mut annotations = spec.pod.annotations.clone();
    annotations.extend([attempt_annotation]);

    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(spec.replicas as i32),
            service_name: Some(identity.name.clone()),
            selector: identity.selector(),
            // OrderedReady would wait for pods that become ready only together.
            pod_management_policy: Some("Parallel".into()),
            // A changed template never replaces a running pod.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".into()),
                when_scaled: Some("Retain".into()),
            }),
            revision_history_limit: Some(1),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::pod(valid, attempt, token, settings)),
            },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}
