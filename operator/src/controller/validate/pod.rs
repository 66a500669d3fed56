//! Pull policy, environment variables, labels and annotations of the pods. Pure.

use datjob_api::{contract, datjob::PodOptions};

use super::{InvalidSpec, check_unique, refuse};

pub(super) fn check(pod: &PodOptions) -> Result<(), InvalidSpec> {
    check_pull_policy(pod)?;
    check_env(pod)?;
    let is_reserved =
        |key: &str| key == contract::RESERVED_LABEL || is_under(&contract::RESERVED_DOMAINS, key);
    check_keys("spec.pod.labels", pod.labels.keys(), is_reserved)?;
    check_keys("spec.pod.annotations", pod.annotations.keys(), |key| {
        is_under(&contract::RESERVED_DOMAINS[..1], key)
    })
}

fn check_pull_policy(pod: &PodOptions) -> Result<(), InvalidSpec> {
    match pod.image_pull_policy.as_deref() {
        None | Some("Always" | "IfNotPresent" | "Never") => Ok(()),
        Some(policy) => refuse(
            "spec.pod.imagePullPolicy",
            format!("unknown pull policy {policy:?}; expected Always, IfNotPresent or Never"),
        ),
    }
}

fn check_env(pod: &PodOptions) -> Result<(), InvalidSpec> {
    let is_reserved = |name: &str| name.starts_with(contract::ENV_PREFIX) && name != contract::ENV_LOG;
    if let Some(variable) = pod.env.iter().find(|variable| is_reserved(&variable.name)) {
        let problem = format!(
            "{} has the reserved prefix {}; choose another name",
            variable.name,
            contract::ENV_PREFIX
        );
        return refuse("spec.pod.env", problem);
    }
    check_unique("spec.pod.env", pod.env.iter().map(|variable| variable.name.as_str()))
}

fn check_keys<'a>(
    field: &str,
    mut keys: impl Iterator<Item = &'a String>,
    is_reserved: impl Fn(&str) -> bool,
) -> Result<(), InvalidSpec> {
    match keys.find(|key| is_reserved(key)) {
        Some(key) => {
            refuse(field, format!("{key:?} is reserved for the operator or Kubernetes; choose another key"))
        }
        None => Ok(()),
    }
}

/// Whether the prefix of a key is one of the domains or a subdomain of one.
fn is_under(domains: &[&str], key: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, _)| {
        domains.iter().any(|domain| prefix == *domain || prefix.ends_with(&format!(".{domain}")))
    })
}
