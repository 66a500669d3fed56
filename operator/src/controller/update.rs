//! Stage 7: writes a changed status and queues its events.
//!
//! Events follow the write of their status. If the write fails, the next reconciliation finds them again. The event Created
//! follows the creation of the children, and is lost if that fails after the claim.

use std::time::{Duration, Instant};

use datjob_api::datjob::{DatJob, DatJobStatus};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    Context,
    identity::{FIELD_MANAGER, Identity},
    status::Outcome,
};
use crate::{
    cache::WrittenStatus,
    calls::{CallError, call},
    conditions,
};

/// Minimum time between two writes that change only the progress of a job.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of such writes per second, for all jobs.
const MAX_PROGRESS_WRITES: u32 = 10;
/// How many times longer that time is while many jobs wait for their reconciliation.
const BUSY_FACTOR: u32 = 4;

/// What changed in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    ProgressOnly,
    Other,
}

/// Result of [`write_status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The job has this status, or it was deleted.
    Current,
    /// Only the progress changed; it must be written after this time.
    Later(Duration),
    /// The job changed meanwhile and must be reconciled again.
    Conflict,
}

/// Writes the status if it changed.
pub async fn write_status(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    outcome: &Outcome,
) -> Result<Written, CallError> {
    match classify_change(job.status.as_ref(), &outcome.status) {
        Change::None => {
            publish_events(context, job, outcome);
            return Ok(Written::Current);
        }
        Change::ProgressOnly => {
            let since = context.cache.get(&identity.uid).written_at.map(|when| when.elapsed());
            let interval = progress_interval(context.reports.jobs(), context.triggers.is_busy());
            if let Some(rest) = since.and_then(|since| interval.checked_sub(since)) {
                return Ok(Written::Later(rest.min(PROGRESS_INTERVAL)));
            }
        }
        Change::Other => {}
    }
    let before = job.status.as_ref().map_or("", |status| status.state.as_str());
    let operation = format!("write the status of DatJob {}/{}", identity.namespace, identity.name);
    let mut written = call(&operation, write(context, job, identity, &outcome.status)).await;
    // A job is complete only with its results.
    if let Err(error) = &written
        && error.is_invalid()
        && outcome.status.results.is_none()
    {
        // Without this, deadlines and conditions of the job would end with an invalid report.
        warn!(job = %identity.name, namespace = %identity.namespace, %error, "The API server rejected values of the report; writing the status without them.");
        let reduced = without_new_report(job.status.as_ref(), &outcome.status);
        written = call(&operation, write(context, job, identity, &reduced)).await;
    }
    let written = match written {
        Ok(written) => written,
        Err(error) if error.is_conflict() => return Ok(Written::Conflict),
        // The job was deleted meanwhile.
        Err(error) if error.is_not_found() => return Ok(Written::Current),
        Err(error) => return Err(error),
    };
    remember(context, job, identity, written);
    if before != outcome.status.state {
        info!(job = %identity.name, namespace = %identity.namespace, previous = before, state = %outcome.status.state, attempt = outcome.status.attempt, generation = outcome.status.generation, "Job state changed.");
    }
    publish_events(context, job, outcome);
    Ok(Written::Current)
}

/// Keeps a status that was written until the watch delivers it.
pub(super) fn remember(context: &Context, replaced: &DatJob, identity: &Identity, written: DatJob) {
    let versions = replaced.resource_version().zip(written.resource_version());
    let status = Box::new(written.status.unwrap_or_default());
    context.cache.update(&identity.uid, |cached| {
        cached.written_at = Some(Instant::now());
        cached.written = versions.map(|(replaced, version)| WrittenStatus { replaced, version, status });
    });
}

fn publish_events(context: &Context, job: &DatJob, outcome: &Outcome) {
    for event in &outcome.events {
        context.events.publish(event.clone(), job.object_ref(&()));
    }
}

/// Writes a status to the version of the job that was read.
async fn write(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    status: &DatJobStatus,
) -> kube::Result<DatJob> {
    if !job.status.as_ref().is_some_and(conditions::is_finished) {
        return apply_status(context, job, identity, status).await;
    }
    let api = Api::<DatJob>::namespaced(context.client.clone(), &identity.namespace);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(&identity.name, &params, &Patch::Merge(patch_of_finished(job, status))).await
}

/// The patch of a finished job. It keeps all other fields, also values of another release that were not decoded.
fn patch_of_finished(job: &DatJob, status: &DatJobStatus) -> Value {
    json!({
        "metadata": {"resourceVersion": job.resource_version()},
        "status": {"observedGeneration": status.observed_generation, "conditions": status.conditions},
    })
}

/// Applies a status to the version of the job that was read.
///
/// The field manager is the same in all installations: what one of them leaves out must vanish although another one, or an
/// older release, wrote it.
pub(super) async fn apply_status(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    status: &DatJobStatus,
) -> kube::Result<DatJob> {
    let api = Api::<DatJob>::namespaced(context.client.clone(), &identity.namespace);
    let body = status_body(job, status);
    api.patch_status(&identity.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body)).await
}

/// The body of an apply request with a status of the version of the job that was read.
pub fn status_body(job: &DatJob, status: &DatJobStatus) -> Value {
    json!({
        "apiVersion": DatJob::api_version(&()),
        "kind": DatJob::kind(&()),
        // The decision is valid only for this version of the job.
        "metadata": {"resourceVersion": job.resource_version()},
        "status": status,
    })
}

fn classify_change(before: Option<&DatJobStatus>, after: &DatJobStatus) -> Change {
    match before {
        Some(before) if before == after => Change::None,
        Some(before) if without_progress(before) == without_progress(after) => Change::ProgressOnly,
        _ => Change::Other,
    }
}

/// Minimum time between two writes of the progress of one of `jobs` jobs. While many jobs wait for their reconciliation, it is
/// longer.
fn progress_interval(jobs: usize, is_busy: bool) -> Duration {
    let interval = PROGRESS_INTERVAL
        .max(Duration::from_secs(1) * u32::try_from(jobs).unwrap_or(u32::MAX) / MAX_PROGRESS_WRITES);
    if is_busy { interval * BUSY_FACTOR } else { interval }
}

/// The status, with the values of the previous one for all that comes from a report.
fn without_new_report(before: Option<&DatJobStatus>, after: &DatJobStatus) -> DatJobStatus {
    let before = before.cloned().unwrap_or_default();
    DatJobStatus {
        progress: before.progress,
        timing: before.timing,
        evaluation: before.evaluation,
        epoch: before.epoch,
        clean: before.clean,
        robust: before.robust,
        split: before.split,
        accuracy: before.accuracy,
        best: before.best,
        warnings: before.warnings,
        failure: before.failure,
        ..after.clone()
    }
}

fn without_progress(status: &DatJobStatus) -> DatJobStatus {
    DatJobStatus { progress: None, timing: None, evaluation: None, epoch: String::new(), ..status.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_may_be_written_later() {
        let before = DatJobStatus { epoch: "1/9".into(), ..DatJobStatus::default() };
        let progress = DatJobStatus { epoch: "2/9".into(), ..DatJobStatus::default() };
        let accuracy = DatJobStatus { clean: "80.00".into(), ..progress.clone() };
        assert_eq!(classify_change(Some(&before), &before), Change::None);
        assert_eq!(classify_change(Some(&before), &progress), Change::ProgressOnly);
        assert_eq!(classify_change(Some(&before), &accuracy), Change::Other);
        assert_eq!(classify_change(None, &before), Change::Other);
    }

    #[test]
    fn a_rejected_report_leaves_the_other_changes() {
        let before =
            DatJobStatus { clean: "80.00".into(), state: "Running".into(), ..DatJobStatus::default() };
        let after = DatJobStatus {
            clean: "?".into(),
            warnings: vec!["?".into()],
            state: "Failed".into(),
            attempt: 2,
            ..DatJobStatus::default()
        };
        let expected = DatJobStatus { state: "Failed".into(), attempt: 2, ..before.clone() };
        assert_eq!(without_new_report(Some(&before), &after), expected);
    }

    #[test]
    fn a_patch_of_a_finished_job_keeps_its_results() {
        let mut job = crate::testing::minimal();
        job.metadata.resource_version = Some("7".into());
        let status = DatJobStatus { observed_generation: 2, ..DatJobStatus::default() };
        assert_eq!(
            patch_of_finished(&job, &status),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"observedGeneration": 2, "conditions": []}})
        );
    }

    #[test]
    fn many_jobs_share_the_writes_of_their_progress() {
        assert_eq!(progress_interval(300, true), 4 * progress_interval(300, false));
        assert_eq!([1, 300, 5_000].map(|jobs| progress_interval(jobs, false).as_secs()), [30, 30, 500]);
    }
}
