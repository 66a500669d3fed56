//! Measurements that several rounds share.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{Api, Client, Resource, core::PartialObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep;

use crate::{
    audit::{Calls, Position},
    bench::{Bench, Span, progress},
    create::create_all,
    figures::{Creation, Interval, seconds},
    observe::watch_appearance,
    operator::Operator,
    process::Usage,
    statistics::{Percentiles, Rates},
    wait::{Seen, deadline, wait_until},
};

/// How often the number of StatefulSets is checked. Their times are those of the watch.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A creation whose requests are not counted yet.
#[derive(Debug)]
pub struct UncountedCreation {
    /// When the first request was sent.
    pub start: Instant,
    /// Position in the audit log at that time.
    pub position: Position,
    creation: Creation,
    span: Span,
}

impl UncountedCreation {
    /// Counts the requests.
    pub fn count(self, bench: &Bench) -> anyhow::Result<Creation> {
        Ok(Creation { calls: bench.count(self.span)?, ..self.creation })
    }
}

/// Creates objects and waits until each has a StatefulSet with its name. `sample` measures the controller, and fails if
/// it has exited.
pub async fn create_and_wait<K>(
    bench: &Bench,
    count: usize,
    api: impl Fn(Client, &str) -> Api<K>,
    object: impl Fn(usize) -> anyhow::Result<K>,
    mut sample: impl FnMut() -> anyhow::Result<Usage>,
) -> anyhow::Result<UncountedCreation>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let creators = bench.creators().await?;
    let sets: Api<PartialObjectMeta<StatefulSet>> = Api::all(bench.administrator().await?);
    let (seen, _watch) = watch_appearance(sets);
    // The watch must be established.
    sleep(Duration::from_secs(1)).await;
    let server_before = bench.cluster.server_cpu_seconds()?;
    let position = bench.position()?;
    let created = create_all(&creators, count, api, object).await?;
    progress(&format!("{count} objects created in {:.1} s", seconds(created.duration)));
    let what = format!("{count} StatefulSets");
    let usage = wait_until(&what, deadline(60, count, 0.4), CHECK_INTERVAL, async || {
        let usage = sample()?;
        let seen = seen.count();
        Ok(if seen >= count { Seen::Done(usage) } else { Seen::Waiting(format!("{seen} StatefulSets")) })
    })
    .await?;
    let span = bench.span_since(position)?;
    let server_cpu_seconds = bench.cluster.server_cpu_seconds()? - server_before;
    let times = seen.seconds_since(created.start);
    let stateful_sets_seconds = times.iter().copied().fold(0.0, f64::max);
    progress(&format!("{count} StatefulSets after {stateful_sets_seconds:.1} s"));
    let mut latencies = Vec::with_capacity(count);
    for (name, (_, returned)) in &created.objects {
        let appeared =
            seen.get(name).with_context(|| format!("StatefulSet {name} does not exist; others do"))?;
        latencies.push(appeared.saturating_duration_since(*returned).as_secs_f64());
    }
    let creation = Creation {
        created_per_second: created.rate(),
        stateful_sets_seconds,
        rates: Rates::of(times),
        latency: Percentiles::of(latencies),
        server_cpu_seconds,
        usage,
        calls: Calls::default(),
    };
    Ok(UncountedCreation { start: created.start, position, creation, span })
}

/// An interval whose requests are not counted yet.
#[derive(Clone, Copy, Debug)]
pub struct UncountedInterval {
    length: f64,
    cpu_seconds: f64,
    span: Span,
}

impl UncountedInterval {
    /// Counts the requests.
    pub fn count(self, bench: &Bench) -> anyhow::Result<Interval> {
        Ok(Interval { seconds: self.length, cpu_seconds: self.cpu_seconds, calls: bench.count(self.span)? })
    }
}

/// Observes an operator for an interval.
pub async fn observe_interval(bench: &Bench, operator: &mut Operator) -> anyhow::Result<UncountedInterval> {
    let before = operator.sample()?.cpu_seconds;
    observe_since(bench, operator, Instant::now(), bench.position()?, before).await
}

/// Observes an operator until an interval after `start` has passed.
pub async fn observe_since(
    bench: &Bench,
    operator: &mut Operator,
    start: Instant,
    position: Position,
    cpu_before: f64,
) -> anyhow::Result<UncountedInterval> {
    sleep(bench.interval.saturating_sub(start.elapsed())).await;
    let cpu_seconds = operator.sample()?.cpu_seconds - cpu_before;
    Ok(UncountedInterval { length: seconds(start.elapsed()), cpu_seconds, span: bench.span_since(position)? })
}
