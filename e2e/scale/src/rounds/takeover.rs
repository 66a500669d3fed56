//! A standby takes over from a leader that was killed or terminated.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use datjob_api::datjob::DatJob;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _, api::PostParams};
use tokio::try_join;

use crate::{
    bench::{Bench, progress},
    cluster::CONTROLLER_NAMESPACE,
    figures::{Takeover, seconds},
    installation::OPERATOR,
    job::{Placement, REPLICAS, manifest, namespace},
    operator::{Operator, OperatorProgram, START_TIMEOUT},
    wait::{Seen, deadline, wait_until},
};

/// How often Lease and status are read. More often would take processor time from what is measured.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Both takeovers.
#[derive(Clone, Copy, Debug)]
pub struct Takeovers {
    /// After SIGKILL.
    pub killed: Takeover,
    /// After SIGTERM.
    pub terminated: Takeover,
}

/// Measures both. `leader` leads. Returns the operator that leads at the end.
pub async fn run(
    bench: &Bench,
    program: &OperatorProgram,
    mut leader: Operator,
    jobs: usize,
) -> anyhow::Result<(Takeovers, Operator)> {
    let second = start_standby(program, "operator-3").await?;
    let signal = leader.kill()?;
    let killed = measure(bench, &second, "takeover-killed", signal, jobs).await?;
    drop(leader);
    let third = start_standby(program, "operator-4").await?;
    let signal = second.terminate()?;
    let terminated = measure(bench, &third, "takeover-terminated", signal, jobs).await?;
    second.stop().await?;
    Ok((Takeovers { killed, terminated }, third))
}

async fn start_standby(program: &OperatorProgram, identity: &str) -> anyhow::Result<Operator> {
    let mut standby = program.start(identity)?;
    standby.wait_until_ready(Some("Standby"), START_TIMEOUT).await?;
    Ok(standby)
}

/// Creates a job right after the signal, and waits for the Lease and for the job's status.
async fn measure(
    bench: &Bench,
    next: &Operator,
    job: &str,
    signal: Instant,
    jobs: usize,
) -> anyhow::Result<Takeover> {
    let client = bench.administrator().await?;
    let namespace = namespace(0);
    let api = Api::<DatJob>::namespaced(client.clone(), &namespace);
    let leases = Api::<Lease>::namespaced(client, CONTROLLER_NAMESPACE);
    let manifest = manifest(job, &namespace, REPLICAS, Placement::Nowhere)?;
    api.create(&PostParams::default(), &manifest)
        .await
        .with_context(|| format!("cannot create DatJob {job}"))?;
    let timeout = deadline(90, jobs, 0.2);
    let expected = next.identity();
    let (awaited_lease, awaited_status) =
        (format!("Lease {OPERATOR} of {expected}"), format!("a status of DatJob {job}"));
    let lease = wait_until(&awaited_lease, timeout, CHECK_INTERVAL, async || {
        let lease = leases.get_opt(OPERATOR).await.context("cannot read the Lease")?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        Ok(if holder == expected {
            Seen::Done(signal.elapsed())
        } else {
            Seen::Waiting(format!("holder {holder:?}"))
        })
    });
    let status = wait_until(&awaited_status, timeout, CHECK_INTERVAL, async || {
        let found = api.get(job).await.with_context(|| format!("cannot read DatJob {job}"))?;
        Ok(match &found.status {
            Some(status) if status.observed_generation > 0 => Seen::Done(signal.elapsed()),
            _ => Seen::Waiting(format!(
                "no status at resource version {}",
                found.resource_version().unwrap_or_default()
            )),
        })
    });
    let (lease, status) = try_join!(lease, status)?;
    progress(&format!("{job}: Lease after {:.1} s, status after {:.1} s", seconds(lease), seconds(status)));
    Ok(Takeover { lease_seconds: seconds(lease), status_seconds: seconds(status) })
}
