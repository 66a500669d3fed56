//! Stage 6: writes the status and publishes the events that go with it.
//!
//! Nothing is written where nothing changed. Events follow the status that they belong to: what was not written was
//! not said, and is found again the next time.

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
    identity::{Identity, MANAGER},
    status::Outcome,
};
use crate::{
    calls::{CallError, call},
    events,
};

/// Least time between two writes that change nothing but progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    ProgressAlone,
    More,
}

/// Writes the status where it changed. Returns false where the job changed meanwhile: it is looked at again.
pub async fn update(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    outcome: &Outcome,
) -> Result<bool, CallError> {
    let change = change(job.status.as_ref(), &outcome.status);
    let since = context.memory.of(&identity.uid).progress_written.map(|when| when.elapsed());
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
        // Deleted meanwhile.
        Err(error) if error.is_not_found() => return Ok(true),
        Err(error) => return Err(error),
    }
    context.memory.change(&identity.uid, |job| job.progress_written = Some(Instant::now()));
    if before != outcome.status.state {
        info!(job = %identity.name, namespace = %identity.namespace, before, state = %outcome.status.state, attempt = outcome.status.attempt, generation = outcome.status.generation, "Job state changed.");
    }
    let about = job.object_ref(&());
    for event in &outcome.events {
        // The status has the story; an event that is lost is no reason to do anything again.
        if let Err(error) = events::publish(&context.recorder, event, &about).await {
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
        // What was decided was decided on this version: on another one, it is decided again.
        "metadata": {"resourceVersion": job.resource_version()},
        "status": status,
    });
    api.patch_status(&identity.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await
}

fn change(before: Option<&DatJobStatus>, after: &DatJobStatus) -> Change {
    match before {
        Some(before) if before == after => Change::Nothing,
        Some(before) if without_progress(before) == without_progress(after) => Change::ProgressAlone,
        _ => Change::More,
    }
}

fn is_due(change: Change, since_last: Option<Duration>) -> bool {
    match change {
        Change::Nothing => false,
        Change::ProgressAlone => since_last.is_none_or(|since| since >= PROGRESS_INTERVAL),
        Change::More => true,
    }
}

fn without_progress(status: &DatJobStatus) -> DatJobStatus {
    DatJobStatus { progress: None, timing: None, epoch: String::new(), ..status.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_alone_waits_and_all_else_does_not() {
        let before = DatJobStatus { epoch: "1/9".into(), ..DatJobStatus::default() };
        let progress = DatJobStatus { epoch: "2/9".into(), ..DatJobStatus::default() };
        let accuracy = DatJobStatus { clean: "80.00".into(), ..progress.clone() };
        assert_eq!(change(Some(&before), &before), Change::Nothing);
        assert_eq!(change(Some(&before), &progress), Change::ProgressAlone);
        assert_eq!(change(Some(&before), &accuracy), Change::More);
        assert_eq!(change(None, &before), Change::More);

        assert!(!is_due(Change::Nothing, None));
        assert!(is_due(Change::ProgressAlone, None));
        assert!(!is_due(Change::ProgressAlone, Some(Duration::from_secs(29))));
        assert!(is_due(Change::ProgressAlone, Some(Duration::from_secs(30))));
        assert!(is_due(Change::More, Some(Duration::ZERO)));
    }
}
