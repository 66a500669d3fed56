//! Finds warning events that explain why pods are missing or do not start.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    cache::ListedWarning,
    calls::{CallError, call},
    clock::{elapsed, has_lasted},
    controller::{
        Context,
        blockers::WarningEvent,
        identity::Identity,
        watch::{ContainerStatus, Pod, StatefulSetState},
    },
};

/// How long pods may be missing before the operator reads the events of their StatefulSet, by the operator's clock.
const MISSING_DELAY: Duration = Duration::from_secs(10);
/// How long a scheduled pod may take to create its containers before the operator reads events, by the kubelet's clock.
const DELAY: Duration = Duration::from_secs(20);
/// Older events are ignored. By the clocks of kubelets and controllers: they may differ by minutes.
const MAX_AGE: Duration = Duration::from_mins(10);

/// How long an answer is used before events are listed again.
const LIST_INTERVAL: Duration = Duration::from_secs(30);

/// Finds the event that explains why a pod is missing or stuck. It lists the events of only one object. While lists must wait
/// (see [`super::event_lists`]), the last answer stands.
pub(super) async fn find_warning(
    context: &Context,
    identity: &Identity,
    set: &StatefulSetState,
    pods: &[Arc<Pod>],
) -> Result<Option<WarningEvent>, CallError> {
    let now = Timestamp::now();
    // Events say nothing while the controller of StatefulSets is behind.
    let is_missing = set.lacks_pods() && (pods.len() as i32) < set.replicas;
    let missing_for = missing_for(context, identity, is_missing);
    let stuck = pods.iter().find(|pod| is_stuck_creating(pod, now));
    let (uid, object, reasons) = match stuck {
        Some(pod) => (
            pod.uid().unwrap_or_default(),
            pod.name_any(),
            &["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"][..],
        ),
        None if missing_for.is_some_and(|missing| missing >= MISSING_DELAY) => {
            (set.uid.clone(), identity.name.clone(), &["FailedCreate"][..])
        }
        None => return Ok(None),
    };
    let last = context.cache.get(&identity.uid).warning.filter(|last| last.object == uid);
    if let Some(last) = &last
        && last.at.elapsed() < LIST_INTERVAL
    {
        return Ok(last.warning.clone());
    }
    let Some(listed) = context.event_lists.run(list_warnings(context, identity, &uid, &object)).await else {
        return Ok(last.and_then(|last| last.warning));
    };
    let warning = newest(listed?, reasons, now).map(|event| WarningEvent {
        reason: event.reason.unwrap_or_default(),
        object,
        message: event.message.unwrap_or_default(),
    });
    let listed = ListedWarning { object: uid, at: Instant::now(), warning: warning.clone() };
    context.cache.update(&identity.uid, |job| job.warning = Some(listed));
    Ok(warning)
}

/// Lists the warning events of an object.
async fn list_warnings(
    context: &Context,
    identity: &Identity,
    uid: &str,
    object: &str,
) -> Result<Vec<Event>, CallError> {
    let api = Api::<Event>::namespaced(context.client.clone(), &identity.namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning")).limit(100);
    let operation = format!("list the events of {}/{object}", identity.namespace);
    Ok(call(operation, api.list(&params)).await?.items)
}

/// How long pods have been missing, as far as this operator has seen.
fn missing_for(context: &Context, identity: &Identity, is_missing: bool) -> Option<Duration> {
    let mut since = None;
    context.cache.update(&identity.uid, |job| {
        job.pods_missing_since = is_missing.then(|| job.pods_missing_since.unwrap_or_else(Instant::now));
        since = job.pods_missing_since;
    });
    since.map(|since| since.elapsed())
}

/// The newest event with one of these reasons from the last 10 minutes. Events that only report a timeout come last.
fn newest(events: Vec<Event>, reasons: &[&str], now: Timestamp) -> Option<Event> {
    let time = |event: &Event| {
        let series =
            event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
        let times = [
            series,
            event.last_timestamp.as_ref().map(|time| time.0),
            event.event_time.as_ref().map(|time| time.0),
        ];
        times.into_iter().flatten().max().unwrap_or(Timestamp::UNIX_EPOCH)
    };
    events
        .into_iter()
        .filter(|event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason)))
        .filter(|event| elapsed(time(event), now) < MAX_AGE)
        .max_by_key(|event| {
            (!event.message.as_deref().unwrap_or_default().contains("timed out"), time(event))
        })
}

/// Whether the containers of a scheduled pod have not been created for [`DELAY`].
fn is_stuck_creating(pod: &Pod, now: Timestamp) -> bool {
    let status = &pod.status;
    let Some(since) = &status.start_time else { return false };
    let is_creating = |container: &ContainerStatus| {
        let reason = container.state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
        matches!(reason, Some("ContainerCreating" | "PodInitializing"))
    };
    let is_running = |container: &ContainerStatus| container.state.running.is_some();
    pod.metadata.deletion_timestamp.is_none()
        && status.phase.as_deref() == Some("Pending")
        && status.container_statuses.iter().any(is_creating)
        && !status.init_container_statuses.iter().any(is_running)
        && has_lasted(since.0, now, DELAY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_pod_is_stuck_after_a_delay() {
        let creating = json!({"status": {"phase": "Pending", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ContainerCreating"}}}
        ]}});
        assert!(!is_stuck_creating(&pod(creating.clone()), "2026-01-01T00:00:10Z".parse().unwrap()));
        assert!(is_stuck_creating(&pod(creating), "2026-01-01T00:00:30Z".parse().unwrap()));
    }

    #[test]
    fn prefers_the_newest_event_with_a_cause() {
        let event = |reason: &str, message: &str, at: &str| -> Event {
            serde_json::from_value(
                json!({"metadata": {}, "involvedObject": {}, "reason": reason, "message": message,
                "lastTimestamp": at}),
            )
            .unwrap()
        };
        let events = vec![
            event("FailedMount", "secret \"s\" not found", "2026-01-01T00:00:00Z"),
            event("FailedMount", "timed out waiting for the condition", "2026-01-01T00:02:00Z"),
            event("Scheduled", "x", "2026-01-01T00:03:00Z"),
        ];
        let now = "2026-01-01T00:04:00Z".parse().unwrap();
        let message = newest(events.clone(), &["FailedMount"], now).unwrap().message;
        assert_eq!(message.as_deref(), Some("secret \"s\" not found"));
        assert_eq!(newest(events, &["FailedMount"], "2026-01-01T01:00:00Z".parse().unwrap()), None);
    }
}
