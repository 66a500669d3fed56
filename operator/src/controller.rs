//! The controller: reconcile = observe → validate → build → apply → status → update, one file per stage.
//!
//! Only observe, apply and update call the API server; validate, build and status are pure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datjob_api::datjob::DatJob;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    runtime::{
        controller::{self, Action, Controller},
        events::Recorder,
        reflector::Store,
        watcher,
    },
};
use tracing::{debug, info, warn};

use self::{
    apply::{ApplyError, Plan},
    build::Settings,
    identity::{FIELD_MANAGER, Identity, Watched},
    validate::Validation,
};
use crate::{cache::JobCache, calls::CallError, conditions, jitter, metrics::Metrics, reports::ReportReader};

pub mod apply;
pub mod attempt;
pub mod blockers;
pub mod build;
pub mod identity;
pub mod observe;
pub mod ownership;
pub mod status;
mod undecodable;
pub mod update;
pub mod validate;

/// Number of concurrent reconciliations.
const CONCURRENCY: u16 = 16;
/// Delay before a job is reconciled again that changed during its reconciliation.
const REQUEUE_DELAY: Duration = Duration::from_millis(500);
/// Maximum delay after errors.
const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// State that all reconciliations share.
pub struct Context {
    /// Client for the API server.
    pub client: Client,
    /// Settings of the installation.
    pub settings: Settings,
    /// Reads reports of trainer pods.
    pub reports: ReportReader,
    /// Publishes events. The process has only one, because it aggregates repeated events.
    pub recorder: Recorder,
    /// Cached state of all jobs.
    pub cache: JobCache,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// A failed reconciliation, which is retried.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A read, or the write of the status, failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The children could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Watches jobs and their StatefulSets until `stop`, then waits for running reconciliations.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<&str>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
    started: impl FnOnce(Store<Watched>),
) {
    let client = &context.client;
    let (jobs, sets): (Api<Watched>, Api<StatefulSet>) = match namespace {
        Some(namespace) => {
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace))
        }
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let ours = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={FIELD_MANAGER}"));
    let controller = Controller::new(jobs, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .owns(sets, ours)
        .graceful_shutdown_on(stop);
    started(controller.store());
    controller
        .run(
            |job, context| reconcile_timed(job, context).boxed(),
            |job, error, context| error_policy(&job, error, &context),
            context,
        )
        .for_each(|result| async move {
            match result {
                Ok(_) => {}
                // Deleted after it was queued.
                Err(controller::Error::ObjectNotFound(job)) => debug!(%job, "Job not found; it was deleted."),
                Err(controller::Error::ReconcilerFailed(error, job)) => match error {
                    ReconcileError::Apply(ApplyError::Stale) => {
                        debug!(%job, %error, "Job changed; reconciling again.");
                    }
                    error => warn!(%job, %error, "Cannot reconcile the job; retrying."),
                },
                Err(error) => warn!(%error, "Watch failed; restarting it."),
            }
        })
        .await;
    info!("Controller stopped.");
}

async fn reconcile_timed(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let start = Instant::now();
    let uid = watched.meta().uid.clone().unwrap_or_default();
    let result = match &watched.0 {
        Ok(job) => reconcile(job, &context).await,
        Err(invalid) => undecodable::report(&context, invalid).await.map_err(ReconcileError::from),
    };
    context.metrics.record_reconcile(result.is_ok(), start.elapsed());
    context
        .cache
        .update(&uid, |job| job.errors = if result.is_ok() { 0 } else { job.errors.saturating_add(1) });
    result
}

/// Runs the stages for one job.
async fn reconcile(job: &DatJob, context: &Context) -> Result<Action, ReconcileError> {
    let Some(identity) = Identity::of(job).filter(|_| !validate::is_deleted(job)) else {
        // The garbage collector deletes the children by their owner references.
        return Ok(Action::await_change());
    };
    let finished =
        job.status.as_ref().is_some_and(|status| conditions::is_true(status, conditions::FINISHED));
    let observation = observe::observe(context, job, &identity, finished).await?;
    let plan = match validate::validate(job, &identity, context.settings.trainer_cuda_image.is_some()) {
        Validation::Valid(valid) => {
            let action = attempt::next_action(&identity, job.status.as_ref(), &observation, Timestamp::now());
            Plan::Run(Box::new(build::build(&valid, action, &context.settings)))
        }
        Validation::Finished => Plan::CleanUp,
        Validation::Invalid(invalid) => Plan::Reject(invalid),
    };
    let applied = apply::apply(context, job, &identity, plan, observation).await?;
    let outcome = status::status(job, &applied, Timestamp::now());
    if !update::write_status(context, job, &identity, &outcome).await? {
        return Ok(Action::requeue(REQUEUE_DELAY));
    }
    Ok(outcome.requeue.map_or_else(Action::await_change, Action::requeue))
}

/// Backs off exponentially: 1, 2, 4 … 60 seconds, ± 25 %.
fn error_policy(watched: &Watched, error: &ReconcileError, context: &Context) -> Action {
    if matches!(error, ReconcileError::Apply(ApplyError::Stale)) {
        return Action::requeue(REQUEUE_DELAY);
    }
    let uid = watched.uid().unwrap_or_default();
    let errors = context.cache.get(&uid).errors.clamp(1, 7);
    let pause = Duration::from_secs(1 << (errors - 1)).min(MAX_BACKOFF);
    Action::requeue(jitter::jittered(&format!("{uid}/{errors}"), pause * 3 / 4, pause * 5 / 4))
}
