//! Waits until the statuses of jobs with unschedulable pods have settled.

use std::time::{Duration, Instant};

use datjob_api::datjob::DatJob;
use datjob_operator::conditions::{self, STALLED};
use kube::{Api, ResourceExt as _, runtime::watcher};

use crate::{
    bench::{Bench, Span, count_pods},
    figures::{Settled, seconds},
    job::{NAMESPACE, REPLICAS},
    observe::{Change, States, watch},
    operator::Operator,
    process::Usage,
    wait::{Seen, deadline, wait_until},
};

/// How long no status may change before the jobs count as settled.
const QUIET: Duration = Duration::from_secs(10);

/// Settled jobs whose requests are not counted yet.
#[derive(Clone, Copy, Debug)]
pub struct UncountedSettled {
    pods_seconds: f64,
    /// Time from `start` until the last change of a status.
    pub seconds: f64,
    usage: Usage,
}

impl UncountedSettled {
    /// Counts the requests.
    pub fn count(self, bench: &Bench, span: Span) -> anyhow::Result<Settled> {
        Ok(Settled {
            pods_seconds: self.pods_seconds,
            seconds: self.seconds,
            usage: self.usage,
            calls: bench.count(span)?,
        })
    }
}

/// Waits until all pods exist, every status reports that they are unschedulable, and no status changes.
pub async fn wait_until_settled(
    bench: &Bench,
    operator: &mut Operator,
    jobs: usize,
    start: Instant,
) -> anyhow::Result<UncountedSettled> {
    let client = bench.administrator().await?;
    let expected = jobs * REPLICAS as usize;
    let timeout = deadline(180, jobs, 0.6);
    wait_until(&format!("{expected} pods"), timeout, Duration::from_millis(500), async || {
        operator.check()?;
        let pods = count_pods(&client, NAMESPACE).await?;
        Ok(if pods >= expected { Seen::Done(()) } else { Seen::Waiting(format!("{pods} pods")) })
    })
    .await?;
    let pods_seconds = seconds(start.elapsed());
    let states = States::default();
    let record = states.clone();
    let api = Api::<DatJob>::namespaced(client, NAMESPACE);
    let _watch = watch(api, watcher::Config::default(), move |change| {
        if let Change::Applied(job) = change {
            let stalled = job.status.as_ref().is_some_and(|status| conditions::is_true(status, STALLED));
            record.record(&job.name_any(), stalled);
        }
    });
    let what = format!("condition Stalled of {jobs} jobs, unchanged for {} s", QUIET.as_secs());
    wait_until(&what, timeout, Duration::from_millis(500), async || {
        operator.check()?;
        let (stalled, quiet) = (states.count(), states.quiet_for());
        Ok(if stalled == jobs && quiet >= QUIET {
            Seen::Done(())
        } else {
            Seen::Waiting(format!("{stalled} stalled jobs, unchanged for {:.1} s", seconds(quiet)))
        })
    })
    .await?;
    let last = states.last_change().unwrap_or(start);
    Ok(UncountedSettled {
        pods_seconds,
        seconds: seconds(last.saturating_duration_since(start)),
        usage: operator.usage()?,
    })
}
