//! The operator with jobs whose simulated pods train and report, and pods that fail at once.

use std::time::Duration;

use anyhow::Context as _;
use datjob_api::datjob::DatJob;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, ResourceExt as _, api::ListParams, runtime::watcher};

use super::restarts;
use crate::{
    bench::{Bench, progress},
    create::create_all,
    figures::{Reporting, seconds},
    job::{Placement, indexed},
    measure::observe_interval,
    namespace::Namespace,
    observe::{Change, States, watch},
    operator::{Operator, START_TIMEOUT},
    simulation::{kubelet, node, pods::Pods, server},
    statistics::Percentiles,
    wait::{Seen, deadline, wait_until},
};

/// Runs the round.
pub async fn run(bench: &Bench, jobs: usize) -> anyhow::Result<Reporting> {
    let client = bench.administrator().await?;
    let namespace = Namespace::create(bench.cluster.api_server()?).await?;
    let mut program = bench.install_operator().await?;
    program.namespace = Some(namespace.clone());
    node::create_claims(&client, jobs).await?;
    let _heartbeat = node::register(&client, jobs + 100).await?;
    let pods = Pods::new(jobs);
    let _server = server::start(&namespace, pods.clone())?;
    let _kubelet = kubelet::start(&client, pods.clone());
    let mut operator = program.start("operator-1")?;
    operator.wait_until_ready(Some("Leader"), START_TIMEOUT).await?;

    let running_seconds = create_running_jobs(bench, &client, &mut operator, jobs).await?;
    progress(&format!("{jobs} jobs run after {running_seconds:.1} s"));
    wait_until_start_is_published(&client, &mut operator, jobs).await?;
    pods.start_counting();
    let interval = observe_interval(bench, &mut operator).await?;
    let reads = pods.stop_counting();
    let usage = operator.sample()?;
    progress(&format!("{} reports read in {} s", reads.count, bench.interval.as_secs()));
    let count = bench.failures.min(jobs);
    let restarts = restarts::run(&client, &pods, &mut operator, count).await?;
    operator.stop().await?;
    let bare_client = restarts::without_operator(&client, &program, &pods, count).await?;
    Ok(Reporting {
        running_seconds,
        interval: interval.count(bench)?,
        usage,
        reads: reads.count,
        read_intervals: Percentiles::of(reads.intervals),
        restarts,
        bare_client,
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

/// Waits until the operator has published the events of the start of each job. It publishes events in the background, in the
/// order in which they happened; WorldFormed is the last one of a start.
async fn wait_until_start_is_published(
    client: &Client,
    operator: &mut Operator,
    jobs: usize,
) -> anyhow::Result<()> {
    let api: Api<Event> = Api::all(client.clone());
    let formed = ListParams::default().fields("reason=WorldFormed");
    let what = format!("an event WorldFormed of {jobs} jobs");
    wait_until(&what, deadline(120, jobs, 0.5), Duration::from_secs(5), async || {
        operator.check()?;
        let published = api.list_metadata(&formed).await.context("cannot list events")?.items.len();
        Ok(if published >= jobs { Seen::Done(()) } else { Seen::Waiting(format!("{published} events")) })
    })
    .await
}
