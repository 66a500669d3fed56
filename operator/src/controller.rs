//! The controller: reconcile = observe → validate → build → claim → apply → status → update, one file per stage.
//!
//! Only claim, observe, apply and update call the API server; validate, build and status are pure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datjob_api::datjob::DatJob;
use futures::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Client, Resource as _, ResourceExt as _,
    runtime::{
        controller::{self, Action, Controller},
        reflector::Store,
    },
};
use tracing::{debug, info, warn};

use self::{
    apply::{ApplyError, Plan},
    build::{AttemptToken, Settings, TokenError},
    claim::{Claim, OtherInstallations},
    identity::Identity,
    observe::event_lists::EventLists,
    triggers::{JobRef, Triggers},
    update::Written,
    validate::Validation,
    watch::{ChildStore, Watched},
};
use crate::{
    cache::JobCache, calls::CallError, conditions, events::EventPublisher, installation::Installation,
    jitter, metrics::Metrics, reports::poller::ReportPoller,
};

pub mod apply;
pub mod attempt;
pub mod blockers;
pub mod build;
pub mod claim;
pub mod identity;
pub mod observe;
pub mod ownership;
pub mod status;
pub mod triggers;
mod undecodable;
pub mod update;
pub mod validate;
pub mod watch;

/// Number of concurrent reconciliations.
const CONCURRENCY: u16 = 16;
/// Delay before a job is reconciled again that changed during its reconciliation.
const CONFLICT_DELAY: Duration = Duration::from_millis(500);
/// Maximum delay after errors.
const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// State that all reconciliations share.
pub struct Context {
    /// Client for the API server.
    pub client: Client,
    /// The installation of this operator.
    pub installation: Installation,
    /// Other installations in its scope.
    pub others: OtherInstallations,
    /// Settings of the installation.
    pub settings: Settings,
    /// The watched children of all jobs.
    pub children: ChildStore,
    /// The reports of all jobs.
    pub reports: ReportPoller,
    /// The jobs that wait for a reconciliation.
    pub triggers: Triggers,
    /// Publishes events.
    pub events: EventPublisher,
    /// Cached state of all jobs.
    pub cache: JobCache,
    /// Bounds the lists of events.
    pub event_lists: EventLists,
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
    /// An attempt has no token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Reconciles the jobs in `store` until `stop`, then waits for running reconciliations.
pub async fn run(
    context: Arc<Context>,
    store: Store<Watched>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    // The watches trigger reconciliations, also those of jobs.
    let controller = Controller::for_stream(stream::pending(), store)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(context.triggers.stream())
        .graceful_shutdown_on(stop);
    let triggers = context.triggers.clone();
    controller
        .run(
            |job, context| reconcile_timed(job, context).boxed(),
            |job, error, context| error_policy(&job, error, &context),
            context,
        )
        .for_each(|result| {
            match result {
                Ok(_) => {}
                // Deleted after it was queued.
                Err(controller::Error::ObjectNotFound(job)) => {
                    debug!(%job, "Job not found; it was deleted.");
                    let found = JobRef::new(&job.name);
                    triggers
                        .start(&job.namespace.iter().fold(found, |found, namespace| found.within(namespace)));
                }
                Err(controller::Error::ReconcilerFailed(error, job)) => match error {
                    ReconcileError::Apply(ApplyError::Stale) => {
                        debug!(%job, %error, "Job changed; reconciling again.");
                    }
                    error => warn!(%job, %error, "Cannot reconcile the job; retrying."),
                },
                Err(error) => warn!(%error, "Watch failed; restarting it."),
            }
            std::future::ready(())
        })
        .await;
    info!("Controller stopped.");
}

async fn reconcile_timed(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let waited = context.triggers.start(&JobRef::from_obj(watched.as_ref()));
    let start = Instant::now();
    let uid = watched.meta().uid.clone().unwrap_or_default();
    let result = match &watched.0 {
        Ok(job) => {
            let newer = context.cache.newer(job);
            reconcile(newer.as_ref().unwrap_or(job), &context).await
        }
        Err(invalid) => undecodable::report(&context, invalid).await.map_err(ReconcileError::from),
    };
    context.metrics.record_reconcile(result.is_ok(), waited, start.elapsed());
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
    let claim = claim::check(context, job, &identity);
    if claim == Claim::Left {
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let finished = job.status.as_ref().is_some_and(conditions::is_finished);
    let observation = observe::observe(context, job, &identity, finished).await?;
    let plan = match validate::validate(job, &identity) {
        Validation::Valid(valid) => {
            let action = attempt::next_action(&identity, job.status.as_ref(), &observation, now);
            if let Some(missing) = context.settings.missing_for(&valid, action) {
                Plan::Wait(action, missing)
            } else {
                let token = AttemptToken::random()?;
                Plan::Run(Box::new(build::build(&valid, action, &token, &context.settings)))
            }
        }
        Validation::Finished => Plan::CleanUp,
        Validation::Invalid(invalid) => Plan::Reject(invalid),
    };
    let claimed = match &plan {
        Plan::Run(children) if claim == Claim::Unclaimed => {
            let recorded = claim::record(context, job, &identity, &observation, children.action, now).await?;
            let Some(claimed) = recorded else { return Ok(Action::await_change()) };
            Some(claimed)
        }
        _ => None,
    };
    let newest = claimed.as_ref().unwrap_or(job);
    // The claim of a new job says already that it has started.
    let before = if apply::is_new(job) { job } else { newest };
    let applied = apply::apply(context, before, &identity, plan, observation).await?;
    let job = newest;
    let mut outcome = status::status(job, &applied, now);
    if !finished {
        context.installation.id().clone_into(&mut outcome.status.managed_by);
    }
    let requeue = match update::write_status(context, job, &identity, &outcome).await? {
        Written::Current => outcome.requeue,
        Written::Later(delay) => Some(outcome.requeue.map_or(delay, |requeue| requeue.min(delay))),
        Written::Conflict => return Err(ReconcileError::Apply(ApplyError::Stale)),
    };
    Ok(requeue.map_or_else(Action::await_change, Action::requeue))
}

/// Backs off exponentially: 1, 2, 4 … 60 seconds, ± 25 %; half as long after a conflict.
fn error_policy(watched: &Watched, error: &ReconcileError, context: &Context) -> Action {
    let first = match error {
        ReconcileError::Apply(ApplyError::Stale) => CONFLICT_DELAY,
        _ => 2 * CONFLICT_DELAY,
    };
    let uid = watched.uid().unwrap_or_default();
    let errors = context.cache.get(&uid).errors.clamp(1, 8);
    let pause = (first * (1 << (errors - 1))).min(MAX_BACKOFF);
    Action::requeue(jitter::jittered(&format!("{uid}/{errors}"), pause * 3 / 4, pause * 5 / 4))
}

#[cfg(test)]
mod tests;
