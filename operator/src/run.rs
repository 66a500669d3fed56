//! Starts the parts of the operator, and ends them in order.

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
    calls::call,
    cli::Run,
    controller::{
        self, Context,
        build::Settings,
        identity::{MANAGER, Watched},
    },
    leader::{Candidate, Held},
    memory::Memory,
    metrics::Metrics,
    reports::Reader,
};

/// How often a missing definition is looked for.
const DEFINITION_PERIOD: Duration = Duration::from_secs(5);
/// How long reconciliations may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(15);
/// How often jobs that are gone are forgotten.
const SWEEP: Duration = Duration::from_mins(10);

/// Runs the operator until SIGTERM, or until its lease is lost.
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
    let mut terminated = Box::pin(termination()?);
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let listener = TcpListener::bind(admin_address)
        .await
        .with_context(|| format!("cannot listen on {admin_address}"))?;
    tokio::spawn(admin::serve(listener, Arc::clone(&metrics), Arc::clone(&readiness)));

    let client = Client::try_default().await.context("cannot configure a Kubernetes client")?;
    let watch_namespace = Some(watch_namespace).filter(|name| !name.is_empty());
    let operator_namespace = Some(lease_namespace).filter(|name| !name.is_empty());
    let identity = if identity.is_empty() { host_name() } else { identity };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        trainer_image,
        trainer_cuda_image,
        identity,
        namespace = watch_namespace.as_deref().unwrap_or("*"),
        "Starting the operator."
    );

    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        settings: Settings {
            trainer_image,
            trainer_cuda_image: Some(trainer_cuda_image).filter(|image| !image.is_empty()),
            operator_namespace: operator_namespace.clone(),
        },
        reports: Reader::new().context("cannot create an HTTP client")?,
        recorder: Recorder::new(client.clone(), reporter),
        memory: Memory::default(),
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

    let turn = async {
        definition_is_there(&client, &readiness).await;
        jobs_can_be_listed(&client, watch_namespace.as_deref(), &readiness).await;
        readiness.ready("Standby.");
        match candidate {
            Some(candidate) => Some(candidate.acquire().await),
            None => None,
        }
    };
    let held = tokio::select! {
        held = turn => held,
        () = &mut terminated => return Ok(()),
    };
    metrics.set_leader(true);
    readiness.ready("Leader.");
    lead(context, watch_namespace.as_deref(), held, terminated, &readiness).await
}

/// Reconciles until SIGTERM, then lets the reconciliations under way end and gives the lease back. Who loses the lease
/// stops in the middle: another may begin in a few seconds.
async fn lead(
    context: Arc<Context>,
    namespace: Option<&str>,
    mut held: Option<Held>,
    terminated: impl Future<Output = ()>,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let started = |store: Store<Watched>| {
        context.metrics.set_store(store.clone());
        tokio::spawn(sweep(store, Arc::clone(&context)));
    };
    let controller = controller::run(Arc::clone(&context), namespace, stop_signal(stopped), started);
    let mut controller = Box::pin(controller);
    {
        let lost = async {
            match &mut held {
                Some(held) => held.keep().await,
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
        readiness.waiting("The operator is stopping.");
        let _ = stop.send(true);
        // The lease is renewed until the last write.
        tokio::select! {
            drained = tokio::time::timeout(DRAIN, &mut controller) => {
                if drained.is_err() {
                    warn!("Reconciliations did not finish in time; aborting them.");
                }
            }
            lost = &mut lost => return Err(lost.into()),
        }
    }
    drop(controller);
    if let Some(held) = held {
        held.release().await;
    }
    Ok(())
}

/// Resolves at SIGTERM or SIGINT.
fn termination() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn stop_signal(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits until the API server knows DatJob: an operator that is installed before its definition does not crash.
async fn definition_is_there(client: &Client, readiness: &Readiness) {
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
            Ok(_) => missing(),
            Err(error) if error.is_not_found() => missing(),
            Err(error) => format!("Waiting for the API server: {error}."),
        };
        if problem != reported {
            warn!(problem, "Operator is waiting.");
            reported.clone_from(&problem);
        }
        readiness.waiting(problem);
        sleep(DEFINITION_PERIOD).await;
    }
}

fn missing() -> String {
    format!(
        "The CustomResourceDefinition {}.{GROUP} is not installed; apply the output of `datjob-operator crd`.",
        DatJob::plural(&())
    )
}

/// Waits until jobs can be listed, which is what the watch begins with.
///
/// The watch itself cannot be asked: kube's store wakes only one of those who wait for its first list, and the
/// controller is one of them.
async fn jobs_can_be_listed(client: &Client, namespace: Option<&str>, readiness: &Readiness) {
    let jobs: Api<DatJob> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = ListParams::default().limit(1);
    while let Err(error) = call("list DatJobs", jobs.list_metadata(&params)).await {
        warn!(%error, "Operator is waiting.");
        readiness.waiting(format!("Waiting for the API server: {error}."));
        sleep(DEFINITION_PERIOD).await;
    }
}

async fn sweep(store: Store<Watched>, context: Arc<Context>) {
    loop {
        sleep(SWEEP).await;
        let uids: HashSet<String> = store.state().iter().filter_map(|job| job.meta().uid.clone()).collect();
        context.memory.retain(&uids);
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", name.trim(), std::process::id())
}
