//! Stage 6: writes a changed status and publishes its events.
//!
//! Events follow the write of their status. If the write fails, the next reconciliation finds them again.

use std::time::{Duration, Instant};

use datjob_api::datjob::{DatJob, DatJobStatus};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::{info, warn};

use super::{
    Context,
    identity::{FIELD_MANAGER, Identity},
    status::Outcome,
};
use crate::{
    calls::{CallError, call},
    events,
};

/// Minimum time between two writes that change only progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// What changed in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    ProgressOnly,
    Other,
}

/// Writes the status if it changed. Returns false if the job changed meanwhile and must be reconciled again.
pub async fn write_status(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    outcome: &Outcome,
) -> Result<bool, CallError> {
    let change = classify_change(job.status.as_ref(), &outcome.status);
    let since = context.cache.get(&identity.uid).progress_written_at.map(|when| when.elapsed());
    if !is_due(change, since) {
        return Ok(true);
    }
    let before = job.status.as_ref().map_or("", |status| status.state.as_str());
    match call(
        format!("write the status of DatJob {}/{}", identity.namespace, identity.name),
        patch(context, job, identity, &outcome.status),
    )
    .await
    {
        Ok(_) => {}
        Err(error) if error.is_conflict() => return Ok(false),
        // The job was deleted meanwhile.
        Err(error) if error.is_not_found() => return Ok(true),
        Err(error) => return Err(error),
    }
    context.cache.update(&identity.uid, |job| job.progress_written_at = Some(Instant::now()));
    if before != outcome.status.state {
        info!(job = %identity.name, namespace = %identity.namespace, previous = before, state = %outcome.status.state, attempt = outcome.status.attempt, generation = outcome.status.generation, "Job state changed.");
    }
    let regarding = job.object_ref(&());
    for event in &outcome.events {
        // The status has the same information, so a lost event is not retried.
        if let Err(error) = events::publish(&context.recorder, event, &regarding).await {
            warn!(job = %identity.name, namespace = %identity.namespace, %error, "Cannot publish the event.");
        }
    }
    Ok(true)
}

async fn patch(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    status: &DatJobStatus,
) -> kube::Result<DatJob> {
    let api = Api::<DatJob>::namespaced(context.client.clone(), &identity.namespace);
    let body = json!({
        "apiVersion": DatJob::api_version(&()),
        "kind": DatJob::kind(&()),
        // The decision is valid only for this version of the job.
        "metadata": {"resourceVersion": job.resource_version()},
        "status": status,
    });
    api.patch_status(&identity.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body)).await
}

fn classify_change(before: Option<&DatJobStatus>, after: &DatJobStatus) -> Change {
    match before {
        Some(before) if before == after => Change::None,
        Some(before) if without_progress(before) == without_progress(after) => Change::ProgressOnly,
        _ => Change::Other,
    }
}

fn is_due(change: Change, since_last: Option<Duration>) -> bool {
    match change {
        Change::None => false,
        Change::ProgressOnly => since_last.is_none_or(|since| since >= PROGRESS_INTERVAL),
        Change::Other => true,
    }
}

fn without_progress(status: &DatJobStatus) -> DatJobStatus {
    DatJobStatus { progress: None, timing: None, epoch: String::new(), ..status.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_waits_for_the_interval() {
        let before = DatJobStatus { epoch: "1/9".into(), ..DatJobStatus::default() };
        let progress = DatJobStatus { epoch: "2/9".into(), ..DatJobStatus::default() };
        let accuracy = DatJobStatus { clean: "80.00".into(), ..progress.clone() };
        assert_eq!(classify_change(Some(&before), &before), Change::None);
        assert_eq!(classify_change(Some(&before), &progress), Change::ProgressOnly);
        assert_eq!(classify_change(Some(&before), &accuracy), Change::Other);
        assert_eq!(classify_change(None, &before), Change::Other);

        assert!(!is_due(Change::None, None));
        assert!(is_due(Change::ProgressOnly, None));
        assert!(!is_due(Change::ProgressOnly, Some(Duration::from_secs(29))));
        assert!(is_due(Change::ProgressOnly, Some(Duration::from_secs(30))));
        assert!(is_due(Change::Other, Some(Duration::ZERO)));
    }
}
