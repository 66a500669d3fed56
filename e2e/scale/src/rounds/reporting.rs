//! The operator with jobs whose simulated pods train and report, and pods that fail at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use datjob_api::datjob::DatJob;
use kube::{Api, Client, ResourceExt as _, api::ListParams, runtime::watcher};
use tokio::time::sleep;

use crate::{
    bench::{Bench, progress},
    create::create_all,
    figures::{Reporting, Restarts, seconds},
    job::{Placement, indexed},
    measure::{observe_interval, wait_until_events_published},
    namespace::Namespace,
    observe::{Change, FirstSeen, States, Watch, watch},
    operator::{Operator, START_TIMEOUT},
    simulation::{
        kubelet::{self, write_statuses},
        node,
        pods::{Pods, SimulatedPod},
        server,
    },
    statistics::Percentiles,
    wait::{Seen, deadline, wait_until},
};

/// Time from the failure of a pod until its next world forms.
const REFORM: Duration = Duration::from_secs(12);
/// How long a second restart would have time to appear.
const AFTER: Duration = Duration::from_secs(30);

/// Runs the round.
pub async fn run(bench: &Bench, jobs: usize) -> anyhow::Result<Reporting> {
    let client = bench.administrator().await?;
    let namespace = Namespace::create(bench.cluster.api_server()?).await?;
    let mut program = bench.install_operator().await?;
    program.namespace = Some(namespace.clone());
    node::create_claims(&client, jobs).await?;
    let _heartbeat = node::register(&client, jobs + 100).await?;
    let pods = Pods::default();
    let _server = server::start(&namespace, pods.clone())?;
    let _kubelet = kubelet::start(&client, pods.clone());
    let mut operator = program.start("operator-1")?;
    operator.wait_until_ready(Some("Leader"), START_TIMEOUT).await?;

    let running_seconds = create_running_jobs(bench, &client, &mut operator, jobs).await?;
    progress(&format!("{jobs} jobs run after {running_seconds:.1} s"));
    wait_until_events_published(bench, jobs).await?;
    pods.start_counting();
    let interval = observe_interval(bench, &mut operator).await?;
    let reads = pods.stop_counting();
    let usage = operator.sample()?;
    progress(&format!("{} reports read in {} s", reads.count, bench.interval.as_secs()));
    let restarts = fail_pods(&client, &pods, &mut operator, bench.failures.min(jobs)).await?;
    operator.stop().await?;
    Ok(Reporting {
        running_seconds,
        interval: interval.count(bench)?,
        usage,
        reads: reads.count,
        read_intervals: Percentiles::of(reads.intervals),
        restarts,
    })
}

/// Creates jobs of one pod and waits until every status says that they run. Returns the time it took.
async fn create_running_jobs(
    bench: &Bench,
    client: &Client,
    operator: &mut Operator,
    jobs: usize,
) -> anyhow::Result<f64> {
    let states = States::default();
    let record = states.clone();
    let _watch = watch(Api::<DatJob>::all(client.clone()), watcher::Config::default(), move |change| {
        if let Change::Applied(job) = change {
            record
                .record(&job.name_any(), job.status.as_ref().is_some_and(|status| status.state == "Running"));
        }
    });
    let created = create_all(&bench.creators().await?, jobs, Api::<DatJob>::namespaced, |index| {
        indexed(index, 1, Placement::Simulated)
    })
    .await?;
    let what = format!("state Running of {jobs} jobs");
    wait_until(&what, deadline(120, jobs, 0.5), Duration::from_millis(200), async || {
        operator.check()?;
        let running = states.count();
        Ok(if running == jobs { Seen::Done(()) } else { Seen::Waiting(format!("{running} jobs run")) })
    })
    .await?;
    Ok(seconds(created.start.elapsed()))
}

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
async fn fail_pods(
    client: &Client,
    pods: &Pods,
    operator: &mut Operator,
    count: usize,
) -> anyhow::Result<Restarts> {
    let observed = observe_restarts(client);
    sleep(Duration::from_secs(5)).await;
    let failed_at = Instant::now();
    let failed = pods.fail(count);
    let failures_written = FirstSeen::default();
    write_statuses(client, &failed, false, &failures_written).await?;
    sleep(REFORM.saturating_sub(failed_at.elapsed())).await;
    let formed_at = Instant::now();
    let formed = pods.form();
    let formed_written = FirstSeen::default();
    write_statuses(client, &formed, true, &formed_written).await?;
    let writes_seconds = seconds(formed_at.elapsed());
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
        restarting: Percentiles::of(observed.restarting.seconds_after(&failures_written)),
        jobs_seen_restarting: observed.restarting.count(),
        counted: Percentiles::of(observed.counted.seconds_after(&formed_written)),
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
