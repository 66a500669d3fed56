//! Pod spec of the trainer pods. Pure. It satisfies the Pod Security level `restricted` and mounts no service account
//! token.

use std::collections::BTreeMap;

use datjob_api::{contract, datjob::PodOptions, training::Source};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
        PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector,
        SecurityContext, Toleration,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{AttemptToken, Settings, volumes};
use crate::controller::validate::ValidJob;

/// Default toleration of unreachable nodes. The 300 seconds of Kubernetes would delay the next world.
const UNREACHABLE_SECONDS: i64 = 30;

pub(super) fn pod(valid: &ValidJob<'_>, attempt: u32, token: &AttemptToken, settings: &Settings) -> PodSpec {
    let options = &valid.job.spec.pod;
    PodSpec {
        init_containers: data_container(valid).map(|container| vec![container]),
        containers: vec![trainer(valid, attempt, token, settings)],
        volumes: Some(volumes::volumes(valid)),
        restart_policy: Some("Always".into()),
        termination_grace_period_seconds: Some(options.termination_grace_period_seconds),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod_security_context(options)),
        service_account_name: options.service_account_name.clone(),
        image_pull_secrets: non_empty(options.image_pull_secrets.clone()),
        node_selector: (!options.node_selector.is_empty()).then(|| options.node_selector.clone()),
        tolerations: Some(tolerations(options)),
        affinity: options.affinity.clone(),
        topology_spread_constraints: non_empty(options.topology_spread_constraints.clone()),
        priority_class_name: options.priority_class_name.clone(),
        runtime_class_name: options.runtime_class_name.clone(),
        scheduler_name: options.scheduler_name.clone(),
        ..PodSpec::default()
    }
}

/// An empty list is absent.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn trainer(valid: &ValidJob<'_>, attempt: u32, token: &AttemptToken, settings: &Settings) -> Container {
    let options = &valid.job.spec.pod;
    let image = match &settings.trainer_cuda_image {
        _ if !options.image.is_empty() => &options.image,
        Some(image) if options.gpus() > 0 => image,
        _ => &settings.trainer_image,
    };
    let mut env = operator_env(valid, attempt, token);
    env.extend(store_credentials(valid));
    env.extend(options.env.clone());
    Container {
        name: contract::CONTAINER.into(),
        image: Some(image.clone()),
        image_pull_policy: options.image_pull_policy.clone(),
        args: Some(vec!["agent".into()]),
        env: Some(env),
        ports: Some(vec![ContainerPort {
            name: Some(contract::AGENT_PORT_NAME.into()),
            container_port: i32::from(contract::AGENT_PORT),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(health_probe(5, 2)),
        // Generous, because the agent shares its cores with the training and a restart ends the world.
        liveness_probe: Some(health_probe(10, 6)),
        resources: Some(options.resources.clone()),
        security_context: Some(container_security_context()),
        volume_mounts: Some(volumes::mounts(valid)),
        ..Container::default()
    }
}

/// Init container that copies the files of a data image to the data volume.
fn data_container(valid: &ValidJob<'_>) -> Option<Container> {
    let Source::Image(image) = &valid.job.spec.training.data.source else { return None };
    Some(Container {
        name: volumes::DATA_CONTAINER.into(),
        image: Some(image.reference.clone()),
        image_pull_policy: valid.job.spec.pod.image_pull_policy.clone(),
        env: Some(vec![env_value(contract::ENV_DATA, contract::DATA_DIR)]),
        resources: without_devices(&valid.job.spec.pod.resources),
        security_context: Some(container_security_context()),
        volume_mounts: Some(volumes::data_container_mounts()),
        ..Container::default()
    })
}

/// CPU, memory and storage of the trainer, which a pod reserves anyway. A ResourceQuota can require them of each container.
fn without_devices(resources: &ResourceRequirements) -> Option<ResourceRequirements> {
    let keep = |quantities: &BTreeMap<String, Quantity>| {
        let mut kept = quantities.clone();
        kept.retain(|name, _| !name.contains('/'));
        (!kept.is_empty()).then_some(kept)
    };
    let limits = resources.limits.as_ref().and_then(keep);
    let requests = resources.requests.as_ref().and_then(keep);
    (limits.is_some() || requests.is_some()).then_some(ResourceRequirements {
        claims: None,
        limits,
        requests,
    })
}

fn operator_env(valid: &ValidJob<'_>, attempt: u32, token: &AttemptToken) -> Vec<EnvVar> {
    let identity = valid.identity;
    let spec = &valid.job.spec;
    let host = format!("{0}-0.{0}.{1}.svc", identity.name, identity.namespace);
    let topology = spec.topology();
    let gpus = (topology.gpus > 0).then(|| env_value(contract::ENV_GPUS, &topology.gpus.to_string()));
    let mut env = vec![
        env_value(contract::ENV_JOB_UID, &identity.uid),
        env_field(contract::ENV_POD_UID, "metadata.uid"),
        env_field(contract::ENV_POD_IP, "status.podIP"),
        env_field(contract::ENV_POD_INDEX, "metadata.labels['apps.kubernetes.io/pod-index']"),
        env_value(contract::ENV_REPLICAS, &spec.replicas.to_string()),
        env_value(contract::ENV_WORKERS_PER_POD, &topology.workers.to_string()),
        env_value(contract::ENV_ATTEMPT, &attempt.to_string()),
        env_value(contract::ENV_TOKEN, token.as_str()),
        env_value(contract::ENV_RENDEZVOUS_HOST, &host),
    ];
    env.extend(gpus);
    env
}

/// Credentials of the object store. The kubelet reads the Secret, so the operator needs no permission.
fn store_credentials(valid: &ValidJob<'_>) -> Vec<EnvVar> {
    let Source::ObjectStore(store) = &valid.job.spec.training.data.source else { return Vec::new() };
    let Some(secret) = &store.secret_name else { return Vec::new() };
    contract::ENV_AWS.iter().map(|name| secret_key(name, secret)).collect()
}

fn secret_key(name: &str, secret: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: name.to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn env_value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn env_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: Some("v1".into()),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn health_probe(period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz".into()),
            port: IntOrString::String(contract::AGENT_PORT_NAME.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn pod_security_context(options: &PodOptions) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(options.run_as_user),
        run_as_group: Some(options.run_as_user),
        fs_group: Some(options.fs_group),
        // Changing the owner of a large data set at each start would take minutes.
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}

fn tolerations(options: &PodOptions) -> Vec<Toleration> {
    let mut tolerations = options.tolerations.clone();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = options.tolerations.iter().any(|toleration| {
            let this_key = toleration.key.as_deref().unwrap_or_default();
            let this_effect = toleration.effect.as_deref().unwrap_or_default();
            (this_key.is_empty() || this_key == key) && (this_effect.is_empty() || this_effect == "NoExecute")
        });
        if !tolerated {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(UNREACHABLE_SECONDS),
                value: None,
            });
        }
    }
    tolerations
}
