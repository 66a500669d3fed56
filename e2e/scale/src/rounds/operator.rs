//! The operator with jobs whose pods no node can run: creation, idle, cold start, takeover.

use std::time::Instant;

use datjob_api::datjob::DatJob;
use kube::Api;

use super::takeover;
use crate::{
    bench::{Bench, progress},
    figures::{ColdStart, OperatorFigures, Settled, seconds},
    job::{Placement, REPLICAS, indexed},
    measure::{UncountedInterval, create_and_wait, observe_interval, observe_since},
    operator::{Operator, OperatorProgram, START_TIMEOUT},
    process::Usage,
    settle::wait_until_settled,
};

/// Runs the round.
pub async fn run(bench: &Bench, jobs: usize) -> anyhow::Result<OperatorFigures> {
    let program = bench.install_operator().await?;
    let mut operator = program.start("operator-1")?;
    operator.wait_until_ready(Some("Leader"), START_TIMEOUT).await?;
    let creation = create_and_wait(
        bench,
        jobs,
        Api::<DatJob>::namespaced,
        |index| indexed(index, REPLICAS, Placement::Nowhere),
        || operator.sample(),
    )
    .await?;
    let administrator = bench.administrator().await?;
    let settled = wait_until_settled(administrator, jobs, creation.start, || operator.check()).await?;
    let settled_usage = operator.sample()?;
    let settled_span = bench.span_since(creation.position)?;
    progress(&format!("statuses settled after {:.1} s", settled.statuses));
    let idle = observe_interval(bench, &mut operator).await?;
    progress("idle interval observed");
    let cold_start = cold_start(bench, &program, operator).await?;
    let (takeovers, last) = takeover::run(bench, &program, cold_start.operator, jobs).await?;
    last.stop().await?;

    Ok(OperatorFigures {
        creation: creation.count(bench)?,
        settled: Settled {
            pods_seconds: settled.pods,
            seconds: settled.statuses,
            calls: bench.count(settled_span)?,
            usage: settled_usage,
        },
        idle: idle.count(bench)?,
        cold_start: ColdStart {
            interval: cold_start.interval.count(bench)?,
            stop_seconds: cold_start.stop_seconds,
            ready_seconds: cold_start.ready_seconds,
            leader_seconds: cold_start.leader_seconds,
            usage: cold_start.usage,
        },
        killed: takeovers.killed,
        terminated: takeovers.terminated,
    })
}

struct UncountedColdStart {
    stop_seconds: f64,
    ready_seconds: f64,
    leader_seconds: f64,
    interval: UncountedInterval,
    usage: Usage,
    operator: Operator,
}

/// Stops the operator and observes the first minute of a new one.
async fn cold_start(
    bench: &Bench,
    program: &OperatorProgram,
    operator: Operator,
) -> anyhow::Result<UncountedColdStart> {
    let stop_seconds = seconds(operator.stop().await?);
    let position = bench.position()?;
    let start = Instant::now();
    let mut operator = program.start("operator-2")?;
    let ready_seconds = seconds(operator.wait_until_ready(None, START_TIMEOUT).await?);
    let leader_seconds = seconds(operator.wait_until_ready(Some("Leader"), START_TIMEOUT).await?);
    progress(&format!("new process ready after {ready_seconds:.2} s, leader after {leader_seconds:.2} s"));
    let interval = observe_since(bench, &mut operator, start, position, 0.0).await?;
    let usage = operator.sample()?;
    Ok(UncountedColdStart { stop_seconds, ready_seconds, leader_seconds, interval, usage, operator })
}
