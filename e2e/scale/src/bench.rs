//! What all rounds share: cluster, programs, directories.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use crate::{
    audit::{Calls, Position},
    cluster::{Cluster, client},
    create::CREATORS,
    installation::{create_namespace, install_operator},
    job::namespaces,
    operator::OperatorProgram,
    share::clients,
};

/// Settings of the rounds.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The cluster.
    pub cluster: Cluster,
    /// The operator's binary.
    pub operator: PathBuf,
    /// The operator's chart.
    pub chart: PathBuf,
    /// Directory with the binary `lws` and its definition `crd.yaml`.
    pub lws: PathBuf,
    /// Directory for logs and kubeconfigs.
    pub work: PathBuf,
    /// Number of pods that fail at once.
    pub failures: usize,
    /// Length of intervals of observation.
    pub interval: Duration,
}

/// A span of the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Span(Position, Position);

impl Bench {
    /// The administrator's client.
    pub async fn administrator(&self) -> anyhow::Result<Client> {
        client(&self.cluster.kubeconfig()).await
    }

    /// The clients that create objects as users do.
    pub async fn creators(&self) -> anyhow::Result<Vec<Client>> {
        clients(&self.cluster.kubeconfig(), CREATORS).await
    }

    /// Starts a new cluster with the namespaces of this number of jobs. Returns the time it took.
    pub async fn new_cluster(&self, jobs: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        fs::create_dir_all(&self.work).with_context(|| format!("cannot create {}", self.work.display()))?;
        self.cluster.restart().await?;
        self.create_namespaces(jobs).await?;
        Ok(start.elapsed())
    }

    /// Creates the namespaces of this number of jobs.
    pub async fn create_namespaces(&self, jobs: usize) -> anyhow::Result<()> {
        for (namespace, _) in namespaces(jobs) {
            create_namespace(&self.cluster, &namespace).await?;
        }
        Ok(())
    }

    /// Installs the operator's definition and permissions. Returns how to start it.
    pub async fn install_operator(&self) -> anyhow::Result<OperatorProgram> {
        let kubeconfig = self.work.join("operator.kubeconfig");
        install_operator(&self.cluster, &self.chart, &self.work, &kubeconfig).await?;
        Ok(OperatorProgram {
            binary: self.operator.clone(),
            kubeconfig,
            logs: self.work.clone(),
            namespace: None,
        })
    }

    /// The current end of the audit log.
    pub fn position(&self) -> anyhow::Result<Position> {
        self.cluster.audit_log().position()
    }

    /// The span of the audit log from `start` until now.
    pub fn span_since(&self, start: Position) -> anyhow::Result<Span> {
        Ok(Span(start, self.position()?))
    }

    /// Counts the requests in a span. Takes seconds for a large one: call it when no time is measured.
    pub fn count(&self, Span(from, to): Span) -> anyhow::Result<Calls> {
        self.cluster.audit_log().count(from, to)
    }
}

/// Number of pods in a namespace.
pub async fn count_pods(client: &Client, namespace: &str) -> anyhow::Result<usize> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let first = api
        .list_metadata(&ListParams::default().limit(1))
        .await
        .with_context(|| format!("cannot count the pods of namespace {namespace}"))?;
    let remaining = first.metadata.remaining_item_count.unwrap_or_default();
    Ok(first.items.len() + usize::try_from(remaining).unwrap_or_default())
}

/// Prints a line of progress.
pub fn progress(line: &str) {
    eprintln!("    {line}");
}
