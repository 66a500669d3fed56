//! The Node object of the simulated node, its Lease, and the volume that its pods claim.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::ObjectMeta,
};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    job::{CLAIM, SIMULATED_LABEL, namespaces},
    wait::{Seen, wait_until},
};

/// Name of the node.
pub const NAME: &str = "sim-0";
/// Namespace of the Leases of nodes.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often a kubelet renews its Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);

/// Renews the Lease of the node until it is dropped.
#[derive(Debug)]
pub struct Heartbeat(JoinHandle<()>);

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Registers the node and keeps it ready.
pub async fn register(client: &Client, max_pods: usize) -> anyhow::Result<Heartbeat> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": NAME, "labels": {SIMULATED_LABEL: "true", "kubernetes.io/hostname": NAME}}
    }))
    .context("invalid Node")?;
    nodes
        .create(&PostParams::default(), &node)
        .await
        .with_context(|| format!("cannot create Node {NAME}"))?;
    let capacity = json!({"cpu": "1000000", "memory": "1000Ti", "pods": max_pods.to_string()});
    let now = Timestamp::now();
    let status = json!({"status": {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "The node is simulated.",
            "lastHeartbeatTime": now, "lastTransitionTime": now
        }]
    }});
    nodes
        .patch_status(NAME, &PatchParams::default(), &Patch::Strategic(status))
        .await
        .with_context(|| format!("cannot write the status of Node {NAME}"))?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    leases
        .create(&PostParams::default(), &lease())
        .await
        .with_context(|| format!("cannot create the Lease of Node {NAME}"))?;
    let heartbeat = Heartbeat(tokio::spawn(renew(leases)));
    wait_until_schedulable(&nodes).await?;
    Ok(heartbeat)
}

/// Waits until the controller manager has seen that the node is ready.
async fn wait_until_schedulable(nodes: &Api<Node>) -> anyhow::Result<()> {
    let what = format!("Node {NAME} without taints");
    wait_until(&what, Duration::from_mins(1), Duration::from_millis(200), async || {
        let node = nodes.get(NAME).await.with_context(|| format!("cannot read Node {NAME}"))?;
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let keys: Vec<_> = taints.iter().map(|taint| taint.key.as_str()).collect();
        Ok(if keys.is_empty() {
            Seen::Done(())
        } else {
            Seen::Waiting(format!("taints {}", keys.join(", ")))
        })
    })
    .await
}

fn lease() -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(NAME.to_owned()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    }
}

async fn renew(leases: Api<Lease>) {
    loop {
        sleep(RENEW_INTERVAL).await;
        let spec = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
        if let Err(error) = leases.patch(NAME, &PatchParams::default(), &Patch::Merge(spec)).await {
            eprintln!("cannot renew the Lease of Node {NAME}: {error}; retrying");
        }
    }
}

/// Creates the claim for checkpoints in each namespace, and a volume for it that any node can mount. Nothing mounts it.
pub async fn create_claims(client: &Client, jobs: usize) -> anyhow::Result<()> {
    for (namespace, _) in namespaces(jobs) {
        create_claim(client, &namespace).await?;
    }
    Ok(())
}

async fn create_claim(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "nfs": {"server": "nfs.example", "path": "/"},
            "claimRef": {"namespace": namespace, "name": CLAIM}
        }
    }))
    .context("invalid PersistentVolume")?;
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": namespace,
            "resources": {"requests": {"storage": "1Gi"}}
        }
    }))
    .context("invalid PersistentVolumeClaim")?;
    let params = PostParams::default();
    Api::<PersistentVolume>::all(client.clone())
        .create(&params, &volume)
        .await
        .context("cannot create the volume")?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    claims.create(&params, &claim).await.context("cannot create the claim")?;
    wait_until("the claim to be bound", Duration::from_mins(1), Duration::from_millis(200), async || {
        let claim = claims.get(CLAIM).await.context("cannot read the claim")?;
        let phase = claim.status.and_then(|status| status.phase).unwrap_or_default();
        Ok(if phase == "Bound" { Seen::Done(()) } else { Seen::Waiting(format!("phase {phase:?}")) })
    })
    .await
}
