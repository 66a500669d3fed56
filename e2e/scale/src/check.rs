//! Checks the number of API calls of the operator against limits, on a cluster that is up.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use datjob_api::datjob::DatJob;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use tokio::time::sleep;

use crate::{
    audit::Calls,
    bench::{Bench, progress},
    cli,
    cluster::{CONTROLLER_NAMESPACE, Cluster},
    job::{Placement, REPLICAS, indexed, namespaces},
    measure::create_and_wait,
    operator::{Operator, START_TIMEOUT},
    process::Usage,
    settle::wait_until_settled,
    wait::{Seen, deadline, wait_until},
};

/// An operator makes a request for its Lease in this time.
const LEASE_TIMEOUT: Duration = Duration::from_secs(20);

/// Creates jobs, counts the requests until their statuses have settled and those of an idle minute, and deletes the
/// jobs. Fails if there are more than the limits.
pub async fn run(options: cli::Check) -> anyhow::Result<()> {
    let bench = bench(&options)?;
    let mut operator = None;
    if options.operator.is_some() {
        let mut started = bench.install_operator().await?.start("operator-check")?;
        started.wait_until_ready(Some("Leader"), START_TIMEOUT).await?;
        operator = Some(started);
    }
    wait_for_operator(&bench).await?;
    bench.create_namespaces(options.jobs as usize).await?;
    let counted = count_calls(&bench, operator.as_mut(), options.jobs as usize).await;
    delete_namespaces(&bench, options.jobs as usize).await?;
    if let Some(operator) = operator {
        operator.stop().await?;
    }
    let (created, idle) = counted?;
    let per_job = created.total() as f64 / f64::from(options.jobs);
    let (max_per_job, max_idle) = (options.max_calls_per_job, options.max_idle_calls);
    println!(
        "{} jobs: {per_job:.2} API calls per job (limit {max_per_job}), {} in an idle minute (limit {max_idle})",
        options.jobs,
        idle.total()
    );
    if per_job > max_per_job {
        bail!("{per_job:.2} API calls per job exceed the limit {max_per_job}: {}", list(&created));
    }
    if idle.total() > max_idle {
        bail!("{} API calls in an idle minute exceed the limit {max_idle}: {}", idle.total(), list(&idle));
    }
    Ok(())
}

fn bench(options: &cli::Check) -> anyhow::Result<Bench> {
    let directory = options.kubeconfig.parent().context("the kubeconfig has no directory")?.to_owned();
    let work = std::env::temp_dir().join("datjob-scale-check");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    Ok(Bench {
        cluster: Cluster::new(options.cluster.clone(), directory),
        operator: options.operator.clone().unwrap_or_default(),
        chart: options.chart.clone(),
        lws: PathBuf::new(),
        work,
        failures: 0,
        interval: Duration::from_mins(1),
    })
}

/// Waits until the audit log has a request of the operator.
async fn wait_for_operator(bench: &Bench) -> anyhow::Result<()> {
    let log = bench.cluster.audit_log();
    let before = log.position()?;
    let what = format!("a request of an operator in namespace {CONTROLLER_NAMESPACE}");
    wait_until(&what, LEASE_TIMEOUT, Duration::from_secs(1), async || {
        Ok(if log.position()? > before {
            Seen::Done(())
        } else {
            Seen::Waiting(format!(
                "none in {}; install the operator, or pass --operator",
                log.path().display()
            ))
        })
    })
    .await
}

/// Counts the requests until the statuses have settled, and those of an idle minute.
async fn count_calls(
    bench: &Bench,
    mut operator: Option<&mut Operator>,
    jobs: usize,
) -> anyhow::Result<(Calls, Calls)> {
    let mut sample = || operator.as_mut().map_or(Ok(Usage::default()), |operator| operator.sample());
    let creation = create_and_wait(
        bench,
        jobs,
        Api::<DatJob>::namespaced,
        |index| indexed(index, REPLICAS, Placement::Nowhere),
        &mut sample,
    )
    .await?;
    let client = bench.administrator().await?;
    let settled = wait_until_settled(client, jobs, creation.start, || sample().map(drop)).await?;
    progress(&format!("statuses settled after {:.1} s", settled.statuses));
    let created = bench.span_since(creation.position)?;
    let idle_start = bench.position()?;
    sleep(bench.interval).await;
    let idle = bench.span_since(idle_start)?;
    Ok((bench.count(created)?, bench.count(idle)?))
}

async fn delete_namespaces(bench: &Bench, jobs: usize) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(bench.administrator().await?);
    for (name, _) in namespaces(jobs) {
        let failed = || format!("cannot delete namespace {name}");
        api.delete(&name, &DeleteParams::default()).await.with_context(failed)?;
    }
    for (name, _) in namespaces(jobs) {
        let what = format!("the deletion of namespace {name}");
        wait_until(&what, deadline(120, jobs, 0.5), Duration::from_secs(1), async || {
            let found = api.get_opt(&name).await.with_context(|| format!("cannot read namespace {name}"))?;
            Ok(found.map_or(Seen::Done(()), |_| Seen::Waiting("it exists".to_owned())))
        })
        .await?;
    }
    Ok(())
}

fn list(calls: &Calls) -> String {
    calls.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
}
