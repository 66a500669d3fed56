//! Starts the parts of the operator, and ends them in order.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use datjob_api::datjob::{DatJob, GROUP};
use kube::{
    Client, Resource as _,
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
    controller::{self, Context, Watched, build::Settings, identity::MANAGER},
    leader::Candidate,
    memory::Memory,
    metrics::Metrics,
    reports::Reader,
};

/// How often a missing definition is looked for.
const DEFINITION_PERIOD: Duration = Duration::from_secs(5);
/// How long reconciliations may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(15);
/// How often jobs that are gone are forgotten.
const SWEEP: Duration = Duration::from_secs(600);

/// Runs the operator until SIGTERM, or until its lease is lost.
pub async fn run(options: Run) -> anyhow::Result<()> {
    let Run {
        watch_namespace,
        trainer_image,
        leader_election,
        lease_name,
        lease_namespace,
        identity,
        admin_address,
        log_format: _,
    } = options;
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let listener = TcpListener::bind(admin_address)
        .await
        .with_context(|| format!("cannot listen on {admin_address}"))?;
    let server = tokio::spawn(admin::serve(listener, Arc::clone(&metrics), Arc::clone(&readiness)));

    let mut terminated = Box::pin(termination()?);
    let client = Client::try_default().await.context("found no way to an API server")?;
    let watch_namespace = Some(watch_namespace).filter(|name| !name.is_empty());
    let operator_namespace = Some(lease_namespace).filter(|name| !name.is_empty());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        trainer_image,
        namespace = watch_namespace.as_deref().unwrap_or("*"),
        "Operator starts."
    );

    let identity = if identity.is_empty() { host_name() } else { identity };
    let context = Arc::new(Context {
        client: client.clone(),
        settings: Settings { trainer_image, operator_namespace: operator_namespace.clone() },
        reports: Reader::new().context("cannot make an HTTP client")?,
        recorder: Recorder::new(
            client.clone(),
            Reporter { controller: MANAGER.to_owned(), instance: Some(identity.clone()) },
        ),
        memory: Memory::default(),
        metrics: Arc::clone(&metrics),
    });

    tokio::select! {
        () = definition_is_there(&client, &readiness) => {}
        () = &mut terminated => return Ok(()),
    }
    let mut held = None;
    if leader_election {
        let namespace = operator_namespace.context(
            "leader election needs --lease-namespace (or POD_NAMESPACE); or say --leader-election false",
        )?;
        readiness.ready("Standing by.");
        let candidate = Candidate::new(client.clone(), &namespace, &lease_name, &identity);
        tokio::select! {
            lease = candidate.acquire() => held = Some(lease),
            () = &mut terminated => return Ok(()),
        }
    }
    metrics.set_leader(true);

    let (stop, stopped) = watch::channel(false);
    let controller =
        controller::run(Arc::clone(&context), watch_namespace.as_deref(), stop_signal(stopped), |store| {
            metrics.set_store(store.clone());
            tokio::spawn(note_ready(store.clone(), Arc::clone(&readiness)));
            tokio::spawn(sweep(store, Arc::clone(&context)));
        });
    let mut controller = Box::pin(controller);
    let lost = async {
        match &mut held {
            Some(held) => held.keep().await,
            None => std::future::pending().await,
        }
    };
    let mut lost = Box::pin(lost);
    let ending = tokio::select! {
        () = &mut terminated => Ok(()),
        () = &mut controller => Err(anyhow::anyhow!("the controller ended by itself")),
        lost = &mut lost => Err(lost.into()),
        ended = server => Err(anyhow::anyhow!("the server at {admin_address} ended: {ended:?}")),
    };
    // Whoever lost the lease stops in the middle: another may begin in a few seconds.
    ending?;
    info!("Operator stops.");
    readiness.waiting("The operator stops.");
    let _ = stop.send(true);
    // The lease is renewed while reconciliations end, and given back after the last write.
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, &mut controller) => {
            if drained.is_err() {
                warn!("Reconciliations did not end in time; they are cut off.");
            }
        }
        lost = &mut lost => return Err(lost.into()),
    }
    drop(controller);
    drop(lost);
    metrics.set_leader(false);
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
        let discovered =
            call("look for the definition", client.list_api_group_resources(&group_version)).await;
        let problem = match discovered {
            Ok(list) if list.resources.iter().any(|resource| resource.name == DatJob::plural(&())) => return,
            Ok(_) => missing(),
            Err(error) if error.is_not_found() => missing(),
            Err(error) => format!("The definition could not be looked for: {error}."),
        };
        if problem != reported {
            warn!(problem, "Operator waits.");
            reported.clone_from(&problem);
        }
        readiness.waiting(problem);
        sleep(DEFINITION_PERIOD).await;
    }
}

fn missing() -> String {
    format!(
        "The CustomResourceDefinition {}.{GROUP} is not installed; apply it (datjob-operator crd prints it).",
        DatJob::plural(&())
    )
}

async fn note_ready(store: Store<Watched>, readiness: Arc<Readiness>) {
    readiness.waiting("The watch of DatJobs is not established yet.");
    if store.wait_until_ready().await.is_ok() {
        readiness.ready("Leader.");
        info!(jobs = store.len(), "Operator is ready.");
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
