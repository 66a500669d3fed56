//! Installs what a controller needs outside of its pod: definition, permissions, service account.
//!
//! The controllers run as processes of this machine with the permissions of their service accounts. The API server
//! authorizes and prioritizes their requests as those of pods.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::sleep;

use crate::{
    cluster::{CONTROLLER_NAMESPACE, Cluster, client, write_kubeconfig},
    wait::{Seen, wait_until},
};

/// Name of the operator's service account, and of its Lease.
pub const OPERATOR: &str = "datjob-operator";
/// Lifetime of a token, which is longer than any round.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;
/// How long a new definition may take to be served.
const DEFINITION_TIMEOUT: Duration = Duration::from_mins(1);

/// Installs the chart's definition and permissions, and writes the operator's kubeconfig.
pub async fn install_operator(
    cluster: &Cluster,
    chart: &Path,
    work: &Path,
    kubeconfig: &Path,
) -> anyhow::Result<()> {
    create_namespace(cluster, CONTROLLER_NAMESPACE).await?;
    let chart = chart.to_string_lossy();
    let mut arguments = vec!["template", "datjob", &chart, "--namespace", CONTROLLER_NAMESPACE];
    for template in ["crd", "serviceaccount", "rbac"] {
        arguments.extend([
            "--show-only",
            match template {
                "crd" => "templates/crd.yaml",
                "serviceaccount" => "templates/serviceaccount.yaml",
                _ => "templates/rbac.yaml",
            },
        ]);
    }
    let manifest = cluster.helm(&arguments).await?;
    let path = work.join("chart.yaml");
    fs::write(&path, manifest).with_context(|| format!("cannot write {}", path.display()))?;
    cluster.kubectl(&["apply", "-f", &path.to_string_lossy()]).await?;
    wait_until_served(cluster, "datjobs.datjob.io").await?;
    create_kubeconfig(cluster, OPERATOR, kubeconfig).await
}

/// Installs a controller with all permissions, and writes its kubeconfig.
pub async fn install_other(
    cluster: &Cluster,
    name: &str,
    definition: &Path,
    resource: &str,
    kubeconfig: &Path,
) -> anyhow::Result<()> {
    create_namespace(cluster, CONTROLLER_NAMESPACE).await?;
    cluster.kubectl(&["create", "-f", &definition.to_string_lossy()]).await?;
    wait_until_served(cluster, resource).await?;
    cluster.kubectl(&["-n", CONTROLLER_NAMESPACE, "create", "serviceaccount", name]).await?;
    let account = format!("--serviceaccount={CONTROLLER_NAMESPACE}:{name}");
    let administrator = "--clusterrole=cluster-admin";
    cluster.kubectl(&["create", "clusterrolebinding", name, administrator, &account]).await?;
    create_kubeconfig(cluster, name, kubeconfig).await
}

/// Creates a namespace, unless it exists, and waits for its default service account, without which no pod is created.
pub async fn create_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    if cluster.kubectl(&["get", "namespace", name]).await.is_err() {
        cluster.kubectl(&["create", "namespace", name]).await?;
    }
    let what = format!("the default service account of namespace {name}");
    wait_until(&what, DEFINITION_TIMEOUT, Duration::from_millis(100), async || {
        Ok(match cluster.kubectl(&["-n", name, "get", "serviceaccount", "default"]).await {
            Ok(_) => Seen::Done(()),
            Err(error) => Seen::Waiting(error.to_string()),
        })
    })
    .await
}

/// Waits until objects of a new definition can be listed.
async fn wait_until_served(cluster: &Cluster, resource: &str) -> anyhow::Result<()> {
    wait_until(&format!("resource {resource}"), DEFINITION_TIMEOUT, Duration::from_millis(100), async || {
        Ok(match cluster.kubectl(&["get", resource, "--all-namespaces"]).await {
            Ok(_) => Seen::Done(()),
            Err(error) => Seen::Waiting(error.to_string()),
        })
    })
    .await?;
    // The watch cache of the new resource fills.
    sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// Writes a kubeconfig with a token of a service account.
async fn create_kubeconfig(cluster: &Cluster, account: &str, path: &Path) -> anyhow::Result<()> {
    let administrator = client(&cluster.kubeconfig()).await?;
    let token = create_token(&administrator, account).await?;
    write_kubeconfig(&cluster.kubeconfig(), &token, path)
}

async fn create_token(administrator: &Client, account: &str) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(administrator.clone(), CONTROLLER_NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let what = || format!("cannot create a token of service account {CONTROLLER_NAMESPACE}/{account}");
    let answer =
        accounts.create_token_request(account, &PostParams::default(), &request).await.with_context(what)?;
    answer.status.map(|status| status.token).with_context(what)
}
