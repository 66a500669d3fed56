//! Waits until the statuses of jobs with unschedulable pods have settled.

use std::time::{Duration, Instant};

use datjob_api::datjob::DatJob;
use datjob_operator::conditions::{self, READY};
use kube::{Api, Client, ResourceExt as _, runtime::watcher};

use crate::{
    bench::count_pods,
    figures::seconds,
    job::{REPLICAS, namespaces},
    observe::{Change, States, watch},
    wait::{Seen, deadline, wait_until},
};

/// How long no status may change before the jobs count as settled.
const QUIET: Duration = Duration::from_secs(10);

/// Reasons of the condition Ready of a job whose pods are unschedulable.
const UNSCHEDULABLE: [&str; 2] = ["WaitingForCapacity", "VolumeClaimMissing"];

/// Times since the first request, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct SettledTimes {
    /// Until all pods exist.
    pub pods: f64,
    /// Until the last change of a status.
    pub statuses: f64,
}

/// Waits until all pods exist, every status reports that they are unschedulable, and no status changes. `check` fails if
/// the operator has exited.
pub async fn wait_until_settled(
    client: Client,
    jobs: usize,
    start: Instant,
    mut check: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<SettledTimes> {
    let interval = Duration::from_millis(500);
    // One namespace after the other, so that few requests are necessary.
    for (namespace, jobs_of_namespace) in namespaces(jobs) {
        let expected = jobs_of_namespace * REPLICAS as usize;
        let what = format!("{expected} pods in namespace {namespace}");
        wait_until(&what, deadline(120, jobs, 0.2), interval, async || {
            check()?;
            let pods = count_pods(&client, &namespace).await?;
            Ok(if pods >= expected { Seen::Done(()) } else { Seen::Waiting(format!("{pods} pods")) })
        })
        .await?;
    }
    let pods = seconds(start.elapsed());
    let states = States::default();
    let record = states.clone();
    let api = Api::<DatJob>::all(client);
    let _watch = watch(api, watcher::Config::default(), move |change| {
        if let Change::Applied(job) = change {
            let ready = job.status.as_ref().and_then(|status| conditions::find(status, READY));
            let waits = ready.is_some_and(|ready| UNSCHEDULABLE.contains(&ready.reason.as_str()));
            record.record(&job.name_any(), waits);
        }
    });
    let what = format!("a reason for unschedulable pods of {jobs} jobs, unchanged for {} s", QUIET.as_secs());
    wait_until(&what, deadline(120, jobs, 0.3), interval, async || {
        check()?;
        let (waiting, quiet) = (states.count(), states.quiet_for());
        Ok(if waiting == jobs && quiet >= QUIET {
            Seen::Done(())
        } else {
            Seen::Waiting(format!("{waiting} waiting jobs, unchanged for {:.1} s", seconds(quiet)))
        })
    })
    .await?;
    let last = states.last_change().unwrap_or(start);
    Ok(SettledTimes { pods, statuses: seconds(last.saturating_duration_since(start)) })
}
