//! Starts the parts of the operator and stops them in order.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use datjob_api::datjob::{DatJob, DatJobStatus, GROUP};
use kube::{
    Client, Config, Resource as _,
    runtime::{
        events::{Recorder, Reporter},
        reflector::Store,
    },
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};
use tracing::{info, warn};

use crate::{
    admin::{self, Readiness},
    cache::JobCache,
    calls::call,
    cli::Run,
    conditions::{self, STALLED},
    controller::{
        self, Context,
        build::Settings,
        claim::OtherInstallations,
        observe::event_lists::EventLists,
        status::State,
        triggers::Triggers,
        watch::{ChildStore, Watched, Watcher},
    },
    events::EventPublisher,
    installation::Installation,
    leader::Election,
    metrics::{Gauges, Jobs, Metrics},
    reports::{ReportReader, poller::ReportPoller},
    requests,
};

/// How often the operator checks for its API at startup.
const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// How long running reconciliations may take after SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How often deleted jobs are removed from the cache.
const EVICTION_INTERVAL: Duration = Duration::from_mins(10);

/// Runs the operator until SIGTERM or until its lease is lost.
pub async fn run(options: Run) -> anyhow::Result<()> {
    let Run {
        watch_namespace,
        trainer_image,
        trainer_cuda_image,
        leader_election,
        name,
        lease_namespace,
        identity,
        admin_address,
        log_format: _,
    } = options;
    let mut terminated = Box::pin(termination_signal()?);
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let listener = TcpListener::bind(admin_address)
        .await
        .with_context(|| format!("cannot listen on {admin_address}"))?;
    tokio::spawn(admin::serve(listener, Arc::clone(&metrics), Arc::clone(&readiness)));

    let config = Config::infer().await.context("cannot configure a Kubernetes client")?;
    let client =
        requests::counting_client(config.clone(), &metrics).context("cannot create a Kubernetes client")?;
    let watch_namespace = Some(watch_namespace).filter(|name| !name.is_empty());
    let operator_namespace = Some(lease_namespace).filter(|name| !name.is_empty());
    let installation = Installation::new(operator_namespace.as_deref(), &name);
    let identity = if identity.is_empty() { default_identity() } else { identity };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        trainer_image,
        trainer_cuda_image,
        %installation,
        identity,
        namespace = watch_namespace.as_deref().unwrap_or("*"),
        "Starting the operator."
    );

    let reporter = Reporter { controller: name.clone(), instance: Some(identity.clone()) };
    let triggers = Triggers::default();
    let waiting = triggers.clone();
    // The process has only one recorder, because it aggregates repeated events.
    let recorder = Recorder::new(client.clone(), reporter);
    let events = EventPublisher::start(recorder, Arc::clone(&metrics), move || waiting.is_busy());
    let context = Arc::new(Context {
        client: client.clone(),
        installation,
        others: OtherInstallations::default(),
        settings: Settings {
            trainer_image,
            trainer_cuda_image: Some(trainer_cuda_image).filter(|image| !image.is_empty()),
            operator_namespace: operator_namespace.clone(),
        },
        children: ChildStore::default(),
        reports: ReportPoller::new(ReportReader::new().context("cannot create an HTTP client")?),
        triggers,
        events,
        cache: JobCache::default(),
        event_lists: EventLists::default(),
        metrics: Arc::clone(&metrics),
    });

    let startup = async {
        wait_for_definition(&client, &readiness).await;
        // A standby watches too, so that it can take over at once.
        let jobs = watch(&context, watch_namespace.as_deref(), &readiness).await;
        readiness.set_ready("Standby.");
        if !leader_election {
            return Ok((jobs, None));
        }
        let namespace = operator_namespace.context(
            "leader election requires --lease-namespace (or POD_NAMESPACE); set it, or use --leader-election false",
        )?;
        let election = Election::start(config, &namespace, &name, &identity)?;
        election.acquired().await;
        anyhow::Ok((jobs, Some(election)))
    };
    let (jobs, election) = tokio::select! {
        started = startup => started?,
        () = &mut terminated => return Ok(()),
    };
    metrics.set_leader(true);
    readiness.set_ready("Leader.");
    lead(context, jobs, election, terminated, &readiness).await
}

/// Watches jobs and their children; returns the jobs when all objects are listed.
async fn watch(context: &Arc<Context>, namespace: Option<&str>, readiness: &Readiness) -> Store<Watched> {
    let mut watcher = Watcher::new(&context.client, namespace, context.triggers.clone());
    let (delivering, deleting) = (Arc::clone(context), Arc::clone(context));
    let jobs = watcher.watch_jobs(
        context.installation.clone(),
        move |job| {
            let metadata = job.meta();
            let uid = metadata.uid.as_deref().unwrap_or_default();
            delivering.cache.deliver(uid, metadata.resource_version.as_deref());
        },
        move |uid| {
            deleting.cache.remove(uid);
            deleting.reports.remove_uid(uid);
        },
    );
    watcher.watch_children(&context.children);
    watcher.wait_until_listed(|reason| readiness.set_waiting(reason)).await;
    let (store, measured) = (jobs.clone(), Arc::clone(context));
    context.metrics.set_gauges(move || gauges(&store, &measured));
    jobs
}

fn gauges(jobs: &Store<Watched>, context: &Context) -> Gauges {
    let jobs = jobs.state();
    let decoded = jobs.iter().filter_map(|job| job.0.as_ref().ok());
    let (foreign, own): (Vec<&DatJob>, Vec<_>) =
        decoded.partition(|job| context.installation.management(job).is_foreign());
    let statuses = || own.iter().filter_map(|job| job.status.as_ref());
    let stalled =
        |status: &&DatJobStatus| conditions::is_true(status, STALLED) && !conditions::is_finished(status);
    Gauges {
        queue_depth: context.triggers.depth(),
        reported_jobs: context.reports.jobs(),
        oldest_report: context.reports.oldest(),
        jobs: Jobs {
            states: statuses().map(|status| State::parse(&status.state)).collect(),
            stalled: statuses().filter(stalled).count(),
            foreign: foreign.len(),
        },
    }
}

/// Reconciles until SIGTERM, then waits for running reconciliations and releases the lease. An operator that loses the
/// lease stops immediately, because another one takes over within seconds.
async fn lead(
    context: Arc<Context>,
    jobs: Store<Watched>,
    election: Option<Election>,
    terminated: impl Future<Output = ()>,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let polling = Arc::clone(&context);
    tokio::spawn(async move {
        polling.reports.run(&polling.metrics, |job| polling.triggers.send(job)).await;
    });
    tokio::spawn(evict_deleted_jobs(jobs.clone(), Arc::clone(&context)));
    let mut controller = Box::pin(controller::run(Arc::clone(&context), jobs, wait_for_stop(stopped)));
    {
        let lost = async {
            match &election {
                Some(election) => election.lost().await,
                None => std::future::pending().await,
            }
        };
        let mut lost = Box::pin(lost);
        tokio::select! {
            () = terminated => {}
            () = &mut controller => anyhow::bail!("the controller stopped unexpectedly"),
            lost = &mut lost => return Err(lost.into()),
        }
        info!("Stopping the operator.");
        readiness.set_waiting("The operator is stopping.");
        let _ = stop.send(true);
        // The lease must be renewed until the last write.
        tokio::select! {
            drained = tokio::time::timeout(DRAIN_TIMEOUT, &mut controller) => {
                if drained.is_err() {
                    warn!("Reconciliations did not finish within {} s; aborting them.", DRAIN_TIMEOUT.as_secs());
                }
            }
            lost = &mut lost => return Err(lost.into()),
        }
    }
    drop(controller);
    context.events.drain().await;
    if let Some(election) = election {
        election.release().await;
    }
    Ok(())
}

/// Resolves at SIGTERM or SIGINT.
fn termination_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender was dropped, which also stops the controller.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits until the API server serves DatJob, so that an operator can be installed before its definition.
async fn wait_for_definition(client: &Client, readiness: &Readiness) {
    let group_version = DatJob::api_version(&());
    let mut reported = String::new();
    loop {
        let discovered = call(
            format!("list the resources of {group_version}"),
            client.list_api_group_resources(&group_version),
        )
        .await;
        let problem = match discovered {
            Ok(list) if list.resources.iter().any(|resource| resource.name == DatJob::plural(&())) => return,
            Ok(_) => missing_definition(),
            Err(error) if error.is_not_found() => missing_definition(),
            Err(error) => format!("The operator is not ready: {error}; retrying."),
        };
        if problem != reported {
            warn!(problem, "The operator is not ready; retrying.");
            reported.clone_from(&problem);
        }
        readiness.set_waiting(problem);
        sleep(RETRY_PERIOD).await;
    }
}

fn missing_definition() -> String {
    format!(
        "The CustomResourceDefinition {}.{GROUP} is not installed; apply the output of `datjob-operator crd`.",
        DatJob::plural(&())
    )
}

/// Forgets jobs that were deleted while their watch was interrupted.
async fn evict_deleted_jobs(store: Store<Watched>, context: Arc<Context>) {
    loop {
        sleep(EVICTION_INTERVAL).await;
        let uids: HashSet<String> = store.state().iter().filter_map(|job| job.meta().uid.clone()).collect();
        context.cache.retain(&uids);
        context.reports.retain(&uids);
    }
}

fn default_identity() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", name.trim(), std::process::id())
}
