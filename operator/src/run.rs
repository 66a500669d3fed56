//! Starts the parts of the operator and stops them in order.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use datjob_api::datjob::{DatJob, GROUP};
use kube::{
    Api, Client, Resource as _,
    api::ListParams,
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
    controller::{
        self, Context,
        build::Settings,
        identity::{FIELD_MANAGER, Watched},
    },
    leader::{Candidate, LeaseGuard},
    metrics::Metrics,
    reports::ReportReader,
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
        lease_name,
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

    let client = Client::try_default().await.context("cannot configure a Kubernetes client")?;
    let watch_namespace = Some(watch_namespace).filter(|name| !name.is_empty());
    let operator_namespace = Some(lease_namespace).filter(|name| !name.is_empty());
    let identity = if identity.is_empty() { default_identity() } else { identity };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        trainer_image,
        trainer_cuda_image,
        identity,
        namespace = watch_namespace.as_deref().unwrap_or("*"),
        "Starting the operator."
    );

    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        settings: Settings {
            trainer_image,
            trainer_cuda_image: Some(trainer_cuda_image).filter(|image| !image.is_empty()),
            operator_namespace: operator_namespace.clone(),
        },
        reports: ReportReader::new().context("cannot create an HTTP client")?,
        recorder: Recorder::new(client.clone(), reporter),
        cache: JobCache::default(),
        metrics: Arc::clone(&metrics),
    });
    let candidate = if leader_election {
        let namespace = operator_namespace.context(
            "leader election requires --lease-namespace (or POD_NAMESPACE); set it, or use --leader-election false",
        )?;
        Some(Candidate::new(client.clone(), &namespace, &lease_name, &identity))
    } else {
        None
    };

    let startup = async {
        wait_for_definition(&client, &readiness).await;
        wait_for_list_access(&client, watch_namespace.as_deref(), &readiness).await;
        readiness.set_ready("Standby.");
        match candidate {
            Some(candidate) => Some(candidate.acquire().await),
            None => None,
        }
    };
    let lease = tokio::select! {
        lease = startup => lease,
        () = &mut terminated => return Ok(()),
    };
    metrics.set_leader(true);
    readiness.set_ready("Leader.");
    lead(context, watch_namespace.as_deref(), lease, terminated, &readiness).await
}

/// Reconciles until SIGTERM, then waits for running reconciliations and releases the lease. An operator that loses the
/// lease stops immediately, because another one takes over within seconds.
async fn lead(
    context: Arc<Context>,
    namespace: Option<&str>,
    mut lease: Option<LeaseGuard>,
    terminated: impl Future<Output = ()>,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let started = |store: Store<Watched>| {
        context.metrics.set_store(store.clone());
        tokio::spawn(evict_deleted_jobs(store, Arc::clone(&context)));
    };
    let controller = controller::run(Arc::clone(&context), namespace, wait_for_stop(stopped), started);
    let mut controller = Box::pin(controller);
    {
        let lost = async {
            match &mut lease {
                Some(lease) => lease.renew_until_lost().await,
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
    if let Some(lease) = lease {
        lease.release().await;
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

/// Waits until jobs can be listed, which is the first step of the watch.
///
/// The store of kube wakes only one waiter after its first list, and the controller is that waiter.
async fn wait_for_list_access(client: &Client, namespace: Option<&str>, readiness: &Readiness) {
    let jobs: Api<DatJob> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = ListParams::default().limit(1);
    while let Err(error) = call("list DatJobs", jobs.list_metadata(&params)).await {
        warn!(%error, "The operator is not ready; retrying.");
        readiness.set_waiting(format!("The operator is not ready: {error}; retrying."));
        sleep(RETRY_PERIOD).await;
    }
}

async fn evict_deleted_jobs(store: Store<Watched>, context: Arc<Context>) {
    loop {
        sleep(EVICTION_INTERVAL).await;
        let uids: HashSet<String> = store.state().iter().filter_map(|job| job.meta().uid.clone()).collect();
        context.cache.retain(&uids);
    }
}

fn default_identity() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", name.trim(), std::process::id())
}
