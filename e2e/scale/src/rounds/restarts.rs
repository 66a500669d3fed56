//! Pods that fail at once: how soon the statuses of their jobs show it, with the operator and with a client that only writes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use datjob_api::datjob::DatJob;
use datjob_operator::controller::{identity::FIELD_MANAGER, update::status_body};
use futures::future::try_join;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::watcher,
};
use tokio::time::sleep;

use crate::{
    bench::progress,
    figures::{Restarts, seconds},
    observe::{Change, FirstSeen, Watch, watch},
    operator::{Operator, OperatorProgram},
    share::{WRITERS, clients, share},
    simulation::{
        kubelet::write_statuses,
        pods::{Pods, SimulatedPod},
    },
    statistics::Percentiles,
    wait::{Seen, deadline, wait_until},
};

/// Time from the failure of a pod until its next world forms.
const REFORM: Duration = Duration::from_secs(12);
/// How long a second restart would have time to appear.
const AFTER: Duration = Duration::from_secs(30);

/// When statuses first showed a restart.
struct Observed {
    restarting: FirstSeen,
    counted: FirstSeen,
    _watch: Watch,
}

fn observe_restarts(client: &Client) -> Observed {
    let (restarting, counted) = (FirstSeen::default(), FirstSeen::default());
    let (record_restarting, record_counted) = (restarting.clone(), counted.clone());
    let api = Api::<DatJob>::all(client.clone());
    let watch = watch(api, watcher::Config::default(), move |change| {
        let Change::Applied(job) = change else { return };
        let Some(status) = &job.status else { return };
        if status.state == "Restarting" {
            record_restarting.record(&job.name_any());
        }
        if status.restarts.total > 0 {
            record_counted.record(&job.name_any());
        }
    });
    Observed { restarting, counted, _watch: watch }
}

/// Restarts the containers of `count` pods at once and waits until each status counts the restart.
pub(super) async fn run(
    client: &Client,
    pods: &Pods,
    operator: &mut Operator,
    count: usize,
) -> anyhow::Result<Restarts> {
    let observed = observe_restarts(client);
    sleep(Duration::from_secs(5)).await;
    let failed_at = Instant::now();
    let failed = pods.fail(count);
    write_statuses(client, &failed, false).await?;
    let writes_seconds = seconds(failed_at.elapsed());
    sleep(REFORM.saturating_sub(failed_at.elapsed())).await;
    let formed_at = Instant::now();
    let formed = pods.form();
    write_statuses(client, &formed, true).await?;
    let what = format!("a restart in the statuses of {count} jobs");
    wait_until(&what, deadline(120, count, 0.1), Duration::from_millis(200), async || {
        operator.check()?;
        let counted = observed.counted.count();
        Ok(if counted >= count { Seen::Done(()) } else { Seen::Waiting(format!("{counted} statuses")) })
    })
    .await?;
    progress(&format!(
        "{count} restarts counted {:.1} s after the new worlds formed",
        seconds(formed_at.elapsed())
    ));
    sleep(AFTER).await;
    Ok(Restarts {
        pods: failed.len(),
        writes_seconds,
        restarting: Percentiles::of(observed.restarting.seconds_since(failed_at)),
        jobs_seen_restarting: observed.restarting.count(),
        counted: Percentiles::of(observed.counted.seconds_since(formed_at)),
        wrong_counts: wrong_counts(client, &failed).await?,
    })
}

/// Number of jobs whose restarts differ from their pod's failures.
async fn wrong_counts(client: &Client, failed: &[SimulatedPod]) -> anyhow::Result<usize> {
    let expected: HashMap<&str, u32> = failed.iter().map(|pod| (pod.job.as_str(), 1)).collect();
    let api = Api::<DatJob>::all(client.clone());
    let jobs = api.list(&ListParams::default()).await.context("cannot list DatJobs")?;
    let is_wrong = |job: &&DatJob| {
        let counted = job.status.as_ref().map_or(0, |status| status.restarts.total);
        counted != expected.get(job.name_any().as_str()).copied().unwrap_or_default()
    };
    Ok(jobs.iter().filter(is_wrong).count())
}

/// Fails the pods again without an operator, and writes one status of each job at the same time: what the API server can do.
/// Returns the times from the failure until each status is written.
pub(super) async fn without_operator(
    client: &Client,
    program: &OperatorProgram,
    pods: &Pods,
    count: usize,
) -> anyhow::Result<Percentiles> {
    // With the operator's identity: the API server authorizes and prioritizes by user.
    let writers = clients(&program.kubeconfig, WRITERS).await?;
    let api: Api<DatJob> = Api::all(client.clone());
    let mut jobs = api.list(&ListParams::default()).await.context("cannot list DatJobs")?.items;
    jobs.truncate(count);
    let failed = pods.fail(count);
    let failed_at = Instant::now();
    let what = format!("writing the statuses of {count} jobs");
    let statuses = share(&writers, jobs.len(), &what, deadline(60, count, 0.1), async |client, index| {
        write_restarting(client, &jobs[index]).await?;
        Ok(seconds(failed_at.elapsed()))
    });
    let ((), written) = try_join(write_statuses(client, &failed, false), statuses).await?;
    progress(&format!(
        "without the operator, {count} statuses written after {:.1} s",
        seconds(failed_at.elapsed())
    ));
    Ok(Percentiles::of(written))
}

/// Writes a status as the operator does.
async fn write_restarting(client: &Client, job: &DatJob) -> anyhow::Result<()> {
    let mut status = job.status.clone().unwrap_or_default();
    "Restarting".clone_into(&mut status.state);
    let body = status_body(job, &status);
    let api = Api::<DatJob>::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    api.patch_status(&job.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body))
        .await
        .map(drop)
        .with_context(|| format!("cannot write the status of DatJob {}", job.name_any()))
}
