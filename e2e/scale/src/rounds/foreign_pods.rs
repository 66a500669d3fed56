//! Memory of the operator in a cluster with many pods that belong to no job.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    bench::{Bench, progress},
    create::create_all,
    figures::{ForeignPods, seconds},
    installation::create_namespace,
    operator::{OperatorProgram, START_TIMEOUT},
    process::Usage,
};

/// Namespace of the pods.
const FOREIGN: &str = "foreign";
/// How long an operator runs before it is measured.
const SETTLE: Duration = Duration::from_secs(10);

/// Starts an operator without pods, then one with `count` pods. There are no jobs.
pub async fn run(bench: &Bench, count: usize) -> anyhow::Result<ForeignPods> {
    let program = bench.install_operator().await?;
    create_namespace(&bench.cluster, FOREIGN).await?;
    let without = start_and_measure(&program, "operator-1").await?;
    let created = create_all(&bench.creators().await?, count, Api::<Pod>::namespaced, |index| {
        pod(&format!("pod-{index}"))
    })
    .await?;
    progress(&format!("{count} pods created in {:.1} s", seconds(created.duration)));
    let with = start_and_measure(&program, "operator-2").await?;
    Ok(ForeignPods { without, with })
}

async fn start_and_measure(program: &OperatorProgram, identity: &str) -> anyhow::Result<Usage> {
    let mut operator = program.start(identity)?;
    operator.wait_until_ready(Some("Leader"), START_TIMEOUT).await?;
    sleep(SETTLE).await;
    let usage = operator.sample()?;
    operator.stop().await?;
    Ok(usage)
}

/// A pod that no scheduler binds.
fn pod(name: &str) -> anyhow::Result<Pod> {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": FOREIGN, "labels": {"app": "foreign", "app.kubernetes.io/name": "foreign"}},
        "spec": {
            "schedulerName": "none",
            "containers": [{
                "name": "main",
                "image": "localhost/datjob-pause:1",
                "env": [{"name": "SETTING", "value": "a value of typical length"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}
            }]
        }
    }))
    .context("invalid Pod")
}
