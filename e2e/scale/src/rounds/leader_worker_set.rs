//! The comparison with LeaderWorkerSet: a controller in Go that also creates a StatefulSet and a Service per object.

use std::{fs, process::Command, time::Duration};

use anyhow::Context as _;
use kube::{
    Api,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;

use crate::{
    admin,
    bench::Bench,
    figures::Creation,
    installation::install_other,
    job::{name, namespace},
    measure::create_and_wait,
    process::Process,
    wait::{Seen, wait_until},
};

/// Address of /readyz.
const ADMIN: &str = "127.0.0.1:18081";
/// How long the start may take.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Configuration without webhooks, which would need a certificate, and without a limit of its requests.
const CONFIGURATION: &str = r#"apiVersion: config.lws.x-k8s.io/v1alpha1
kind: Configuration
internalCertManagement: {enable: false}
leaderElection: {leaderElect: false}
clientConnection: {qps: 2000, burst: 4000}
metrics: {bindAddress: "0"}
health: {healthProbeBindAddress: "127.0.0.1:18081"}
"#;

/// Creates LeaderWorkerSets of size 1 and waits for their StatefulSets.
pub async fn run(bench: &Bench, count: usize) -> anyhow::Result<Creation> {
    let kubeconfig = bench.work.join("lws.kubeconfig");
    let definition = bench.lws.join("crd.yaml");
    let resource_name = "leaderworkersets.leaderworkerset.x-k8s.io";
    install_other(&bench.cluster, "lws", &definition, resource_name, &kubeconfig).await?;
    let configuration = bench.work.join("lws.yaml");
    fs::write(&configuration, CONFIGURATION)
        .with_context(|| format!("cannot write {}", configuration.display()))?;
    let mut command = Command::new(bench.lws.join("lws"));
    command
        .arg("--config")
        .arg(&configuration)
        .env("ENABLE_WEBHOOKS", "false")
        .env("KUBECONFIG", &kubeconfig);
    let mut process = Process::start("LeaderWorkerSet", command, bench.work.join("lws.log"))?;
    wait_until_ready(&mut process).await?;

    let kind = GroupVersionKind::gvk("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet");
    let resource = ApiResource::from_gvk(&kind);
    let creation = create_and_wait(
        bench,
        count,
        |client, namespace| Api::<DynamicObject>::namespaced_with(client, namespace, &resource),
        |index| Ok(DynamicObject::new(&name(index), &resource).within(&namespace(index)).data(spec())),
        || process.sample(),
    )
    .await?;
    process.stop().await?;
    creation.count(bench)
}

async fn wait_until_ready(process: &mut Process) -> anyhow::Result<()> {
    let address = ADMIN.parse().with_context(|| format!("invalid address {ADMIN}"))?;
    wait_until("/readyz of LeaderWorkerSet", START_TIMEOUT, Duration::from_millis(100), async || {
        process.check()?;
        Ok(match admin::get(address, "/readyz", None).await {
            Ok(answer) if answer.status == 200 => Seen::Done(()),
            Ok(answer) => Seen::Waiting(format!("HTTP status {}: {}", answer.status, answer.body)),
            Err(error) => Seen::Waiting(format!("{error:#}")),
        })
    })
    .await
}

/// A group of one pod that no node can run. Names what the webhook would default.
fn spec() -> serde_json::Value {
    json!({"spec": {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"partition": 0, "maxUnavailable": 1, "maxSurge": 0}
        },
        "leaderWorkerTemplate": {
            "size": 1,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "workerTemplate": {"spec": {
                "nodeSelector": {"datjob.io/none": "none"},
                "containers": [{
                    "name": "trainer",
                    "image": "localhost/datjob/trainer:0.1.0",
                    "resources": {
                        "requests": {"cpu": "200m", "memory": "512Mi"},
                        "limits": {"cpu": "1", "memory": "2Gi"}
                    }
                }]
            }}
        }
    }})
}
