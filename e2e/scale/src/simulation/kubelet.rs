//! The simulated kubelet: sets the statuses of the pods on the node.

use std::{collections::HashSet, time::Duration};

use anyhow::Context as _;
use futures::{
    StreamExt as _, TryStreamExt as _,
    channel::mpsc::{UnboundedReceiver, unbounded},
    stream,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    node,
    pods::{Pods, SimulatedPod},
};
use crate::observe::{Change, Watch, watch};

/// Concurrent requests.
const CONCURRENCY: usize = 8;
/// Delay before a failed request is repeated, as a kubelet does.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A simulated kubelet, until it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    _watch: Watch,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
enum Action {
    Start(Box<SimulatedPod>),
    Delete { namespace: String, name: String },
}

/// Starts the pods that the scheduler binds to the node, and removes deleted ones.
pub fn start(client: &Client, pods: Pods) -> Kubelet {
    let (sender, receiver) = unbounded();
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node::NAME));
    let mut deleting = HashSet::new();
    let watch = watch(Api::<Pod>::all(client.clone()), config, move |change| {
        let action = match change {
            Change::Applied(pod) if pod.metadata.deletion_timestamp.is_some() => {
                let uid = pod.uid().unwrap_or_default();
                pods.remove(&uid);
                deleting.insert(uid).then(|| Action::Delete {
                    namespace: pod.namespace().unwrap_or_default(),
                    name: pod.name_any(),
                })
            }
            Change::Applied(pod) => match pods.add(pod) {
                Ok(added) => added.map(|pod| Action::Start(Box::new(pod))),
                Err(error) => {
                    eprintln!("cannot simulate a pod: {error:#}");
                    None
                }
            },
            Change::Deleted(pod) => {
                pods.remove(&pod.uid().unwrap_or_default());
                None
            }
        };
        if let Some(action) = action {
            // The receiver is dropped only with the kubelet.
            let _ = sender.unbounded_send(action);
        }
    });
    Kubelet { _watch: watch, task: tokio::spawn(execute(client.clone(), receiver)) }
}

async fn execute(client: Client, actions: UnboundedReceiver<Action>) {
    actions
        .for_each_concurrent(CONCURRENCY, |action| {
            let client = client.clone();
            async move {
                while let Err(error) = run(&client, &action).await {
                    eprintln!("simulated kubelet: {error:#}; retrying");
                    sleep(RETRY_DELAY).await;
                }
            }
        })
        .await;
}

async fn run(client: &Client, action: &Action) -> anyhow::Result<()> {
    match action {
        Action::Start(pod) => write_status(client, pod, true).await,
        Action::Delete { namespace, name } => delete(client, namespace, name).await,
    }
}

async fn delete(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop).with_context(|| format!("cannot delete pod {name}")),
    }
}

/// Writes the statuses of several pods.
pub async fn write_statuses(client: &Client, pods: &[SimulatedPod], ready: bool) -> anyhow::Result<()> {
    stream::iter(pods.iter().map(anyhow::Ok))
        .try_for_each_concurrent(CONCURRENCY, |pod| write_status(client, pod, ready))
        .await
}

async fn write_status(client: &Client, pod: &SimulatedPod, ready: bool) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let body = Patch::Strategic(status(pod, ready, Timestamp::now()));
    match api.patch_status(&pod.name, &PatchParams::default(), &body).await {
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop).with_context(|| format!("cannot write the status of pod {}", pod.name)),
    }
}

fn status(pod: &SimulatedPod, ready: bool, now: Timestamp) -> Value {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let condition = |kind: &str, value: bool| json!({"type": kind, "status": if value { "True" } else { "False" }, "lastTransitionTime": now});
    let last_state = if pod.restarts > 0 {
        json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}})
    } else {
        json!({})
    };
    json!({"status": {
        "phase": "Running",
        "podIP": pod.address,
        "podIPs": [{"ip": pod.address}],
        "startTime": now,
        "conditions": [condition("Initialized", true), condition("ContainersReady", ready), condition("Ready", ready)],
        "containerStatuses": [{
            "name": datjob_api::contract::CONTAINER,
            "image": pod.image,
            "imageID": "",
            "ready": ready,
            "started": true,
            "restartCount": pod.restarts,
            "state": {"running": {"startedAt": now}},
            "lastState": last_state
        }]
    }})
}
