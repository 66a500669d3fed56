//! What the API server can do: DatJobs, children and statuses without an operator.

use std::{fmt::Debug, time::Instant};

use anyhow::Context as _;
use datjob_api::datjob::DatJob;
use datjob_operator::controller::identity::FIELD_MANAGER;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    bench::{Bench, progress},
    children::{children, first_status},
    create::create_all,
    figures::{BareClient, seconds},
    job::{Placement, REPLICAS, indexed},
    share::{WRITERS, clients, share},
    statistics::per_second,
    wait::deadline,
};

/// Creates jobs, then writes the children and the status of each.
pub async fn run(bench: &Bench, jobs: usize) -> anyhow::Result<BareClient> {
    let program = bench.install_operator().await?;
    let creators = bench.creators().await?;
    let cpu_start = bench.cluster.server_cpu_seconds()?;
    let created = create_all(&creators, jobs, Api::<DatJob>::namespaced, |index| {
        indexed(index, REPLICAS, Placement::Nowhere)
    })
    .await?;
    let cpu_created = bench.cluster.server_cpu_seconds()?;
    progress(&format!("{jobs} DatJobs created in {:.1} s", seconds(created.duration)));

    // With the operator's identity: the API server authorizes and prioritizes by user.
    let writers = clients(&program.kubeconfig, WRITERS).await?;
    let objects: Vec<&DatJob> = created.objects.values().map(|(job, _)| job).collect();
    let position = bench.position()?;
    let start = Instant::now();
    let what = format!("writing the children of {jobs} jobs");
    share(&writers, jobs, &what, deadline(60, jobs, 0.3), async |client, index| {
        write_job(client, objects[index]).await
    })
    .await?;
    let children_seconds = seconds(start.elapsed());
    let span = bench.span_since(position)?;
    progress(&format!("children and statuses of {jobs} jobs written in {children_seconds:.1} s"));
    Ok(BareClient {
        created_per_second: created.rate(),
        children_per_second: per_second(jobs, children_seconds),
        total_per_second: per_second(jobs, seconds(created.duration) + children_seconds),
        create_server_cpu_seconds: cpu_created - cpu_start,
        children_server_cpu_seconds: bench.cluster.server_cpu_seconds()? - cpu_created,
        calls: bench.count(span)?,
    })
}

/// Writes children and status of one job, in the operator's order.
async fn write_job(client: &Client, job: &DatJob) -> anyhow::Result<()> {
    let children = children(job)?;
    create(client, &children.config_map).await?;
    create(client, &children.service).await?;
    create(client, &children.disruption_budget).await?;
    if let Some(policy) = &children.network_policy {
        create(client, policy).await?;
    }
    let set = children.stateful_set.context("the operator builds no StatefulSet for a new job")?;
    create(client, set.as_ref()).await?;
    let api = Api::<DatJob>::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let body = Patch::Apply(first_status(job, Timestamp::now()));
    api.patch_status(&job.name_any(), &params, &body)
        .await
        .with_context(|| format!("cannot write the status of DatJob {}", job.name_any()))?;
    Ok(())
}

async fn create<K>(client: &Client, object: &K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default())
        .create(&PostParams::default(), object)
        .await
        .map(drop)
        .with_context(|| format!("cannot create {} {}", K::kind(&()), object.name_any()))
}
