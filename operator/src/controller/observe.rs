//! Stage 1: what is there. Reads only: the StatefulSet, its pods, and the report of pod 0.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use datjob_api::{
    contract,
    datjob::{DatJob, DatJobStatus},
    report::Report,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Event, Pod},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use tracing::debug;

use super::{
    Context,
    blockers::WarningEvent,
    identity::Identity,
    ownership::{self, ApplyConflict},
};
use crate::{
    cache::{CachedJob, ReportingPod},
    calls::{CallError, call},
    reports::ExpectedSender,
};

/// How long the API server's record of a pod is believed before it is read again.
const POD_CACHE_LIFETIME: Duration = Duration::from_mins(1);
/// How long pods may be missing or created before the cluster's events are expected why.
const EVENTS_DELAY_SECONDS: i64 = 20;
/// Pods in one page of a list.
const PAGE_SIZE: u32 = 250;

/// The job's StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSetState {
    /// Its UID.
    pub uid: String,
    /// The attempt that it was written for.
    pub attempt: u32,
    /// Pods that it wants.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready: i32,
}

/// What asking for the report brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReportState {
    /// There is no pod 0 that runs.
    #[default]
    NoPod,
    /// The report.
    Received(Box<Report>),
    /// The pod runs and brought no report; the sentence says why. So often in a row while the pod was ready.
    Unreadable {
        /// The pod.
        pod: String,
        /// Why.
        message: String,
        /// How often in a row.
        failures: u32,
    },
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The StatefulSet, where there is one of this job.
    pub stateful_set: Option<StatefulSetState>,
    /// An object of another owner where the StatefulSet should be.
    pub conflict: Option<ApplyConflict>,
    /// The job's pods, lowest name first; empty where there was no need to look at them.
    pub pods: Vec<Pod>,
    /// The report.
    pub report: ReportState,
    /// Why pods are not created or do not start, where the cluster says so in events only.
    pub warning: Option<WarningEvent>,
}

/// Looks at what is there of a job. A finished one is not expected for its report.
pub async fn observe(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    finished: bool,
) -> Result<Observation, CallError> {
    let api = Api::<StatefulSet>::namespaced(context.client.clone(), &identity.namespace);
    let found = call(
        format!("get StatefulSet {}/{}", identity.namespace, identity.name),
        api.get_opt(&identity.name),
    )
    .await?;
    let conflict = found.as_ref().and_then(|set| ownership::find_conflict(set, identity));
    let set = found.filter(|_| conflict.is_none()).map(|set| stateful_set_state(&set));
    let mut observation = Observation { stateful_set: set.clone(), conflict, ..Observation::default() };
    if finished || observation.conflict.is_some() {
        return Ok(observation);
    }
    let wanted = DatJobStatus::wanted_attempt(job.status.as_ref());
    match &set {
        Some(set) if set.attempt >= wanted => {
            observe_running_attempt(context, identity, set, &mut observation).await?;
        }
        None if job.status.as_ref().is_none_or(|status| status.attempt == 0) => {}
        // Between two attempts all that matters is whether pods are left.
        _ => observation.pods = list_pods(context, identity).await?,
    }
    Ok(observation)
}

fn stateful_set_state(set: &StatefulSet) -> StatefulSetState {
    StatefulSetState {
        uid: set.uid().unwrap_or_default(),
        attempt: set
            .annotations()
            .get(contract::ANNOTATION_ATTEMPT)
            .and_then(|attempt| attempt.parse().ok())
            .unwrap_or_default(),
        replicas: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default(),
        ready: set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default(),
    }
}

async fn observe_running_attempt(
    context: &Context,
    identity: &Identity,
    set: &StatefulSetState,
    observation: &mut Observation,
) -> Result<(), CallError> {
    let cached = context.cache.get(&identity.uid);
    let known = cached_pod(set, &cached);
    if known.is_none() {
        let pods = list_pods(context, identity).await?;
        observation.pods = pods.into_iter().filter(|pod| is_owned_by(pod, &set.uid)).collect();
        observation.warning = find_warning(context, identity, set, &observation.pods).await?;
    }
    let first = format!("{}-0", identity.name);
    let reporting_pod = known.or_else(|| {
        let pod = observation.pods.iter().find(|pod| pod.name_any() == first)?;
        Some(ReportingPod {
            pod: first.clone(),
            pod_uid: pod.uid()?,
            set_uid: set.uid.clone(),
            address: running_address(pod)?,
            seen: Instant::now(),
        })
    });
    observation.report = read_report(context, identity, set, reporting_pod.as_ref(), observation).await;
    let failures = match &observation.report {
        ReportState::Unreadable { failures, .. } => *failures,
        _ => 0,
    };
    context.cache.update(&identity.uid, |cached| {
        cached.reporting_pod = reporting_pod;
        cached.failed_report_reads = failures;
    });
    Ok(())
}

/// The pod that answered last, where there is no reason to look at the pods again: all are ready, the last report was
/// read, and the record is fresh. So a job that trains costs one read of its StatefulSet and one report.
fn cached_pod(set: &StatefulSetState, cached: &CachedJob) -> Option<ReportingPod> {
    cached.reporting_pod.clone().filter(|reporting_pod| {
        reporting_pod.set_uid == set.uid
            && set.replicas > 0
            && set.ready >= set.replicas
            && cached.failed_report_reads == 0
            && reporting_pod.seen.elapsed() < POD_CACHE_LIFETIME
    })
}

async fn read_report(
    context: &Context,
    identity: &Identity,
    set: &StatefulSetState,
    reporting_pod: Option<&ReportingPod>,
    observation: &Observation,
) -> ReportState {
    let Some(reporting_pod) = reporting_pod else { return ReportState::NoPod };
    let expected =
        ExpectedSender { job_uid: &identity.uid, pod_uid: &reporting_pod.pod_uid, attempt: set.attempt };
    match context.reports.read(reporting_pod.address, expected).await {
        Ok(report) => {
            context.metrics.record_report_read("read");
            ReportState::Received(Box::new(report))
        }
        Err(error) => {
            context.metrics.record_report_read(error.outcome());
            debug!(job = %identity.name, namespace = %identity.namespace, pod = %reporting_pod.pod, %error, "Cannot read the report.");
            // A pod that is not ready yet need not answer; one that is must.
            let ready =
                observation.pods.iter().any(|pod| pod.name_any() == reporting_pod.pod && is_ready(pod));
            let before = context.cache.get(&identity.uid).failed_report_reads;
            ReportState::Unreadable {
                pod: reporting_pod.pod.clone(),
                message: error.to_string(),
                failures: if ready || observation.pods.is_empty() { before + 1 } else { 1 },
            }
        }
    }
}

async fn list_pods(context: &Context, identity: &Identity) -> Result<Vec<Pod>, CallError> {
    let api = Api::<Pod>::namespaced(context.client.clone(), &identity.namespace);
    let mut pods = Vec::new();
    let mut params = ListParams::default()
        .labels(&format!("{}={}", contract::LABEL_JOB_UID, identity.uid))
        .limit(PAGE_SIZE);
    loop {
        let what = format!("list the pods of {}/{}", identity.namespace, identity.name);
        let page = call(what, api.list(&params)).await?;
        // Only what is looked at is kept: of 4096 pods the specs alone would be 20 MB.
        pods.extend(page.items.into_iter().map(|mut pod| {
            pod.spec = None;
            pod.metadata.managed_fields = None;
            pod.metadata.annotations = None;
            pod
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    pods.sort_by_key(|pod| ordinal(&pod.name_any()));
    Ok(pods)
}

fn ordinal(name: &str) -> u32 {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// Why pods are missing or hang, where only events say so: expected for one object, and only after a while.
async fn find_warning(
    context: &Context,
    identity: &Identity,
    set: &StatefulSetState,
    pods: &[Pod],
) -> Result<Option<WarningEvent>, CallError> {
    let now = Timestamp::now();
    let stuck = pods.iter().find(|pod| is_stuck_creating(pod, now));
    let (uid, object, reasons) = match stuck {
        Some(pod) => (
            pod.uid().unwrap_or_default(),
            pod.name_any(),
            &["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"][..],
        ),
        None if (pods.len() as i32) < set.replicas => {
            (set.uid.clone(), identity.name.clone(), &["FailedCreate"][..])
        }
        None => return Ok(None),
    };
    let api = Api::<Event>::namespaced(context.client.clone(), &identity.namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning")).limit(100);
    let what = format!("list the events of {}/{object}", identity.namespace);
    let events = call(what, api.list(&params)).await?.items;
    Ok(newest_message(events, reasons, now).map(|message| WarningEvent { object, message }))
}

/// The newest message of one of the reasons, if it is not an old story.
fn newest_message(events: Vec<Event>, reasons: &[&str], now: Timestamp) -> Option<String> {
    let seen = |event: &Event| {
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
        .filter(|event| now.as_second() - seen(event).as_second() < 600)
        .max_by_key(|event| {
            (!event.message.as_deref().unwrap_or_default().contains("timed out"), seen(event))
        })
        .and_then(|event| event.message)
}

/// Whether a pod has a node but its containers have not been created for a while.
fn is_stuck_creating(pod: &Pod, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return false };
    let Some(since) = &status.start_time else { return false };
    let waits = |list: &Option<Vec<_>>| {
        list.iter().flatten().any(|container: &k8s_openapi::api::core::v1::ContainerStatus| {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.is_some_and(|waiting| {
                matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing"))
            })
        })
    };
    let runs = |list: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        list.iter()
            .flatten()
            .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
    };
    pod.metadata.deletion_timestamp.is_none()
        && status.phase.as_deref() == Some("Pending")
        && waits(&status.container_statuses)
        && !runs(&status.init_container_statuses)
        && now.as_second() - since.0.as_second() > EVENTS_DELAY_SECONDS
}

fn is_owned_by(pod: &Pod, set_uid: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == set_uid && owner.controller == Some(true))
}

/// Whether the kubelet calls the pod ready.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Since when the trainer of a pod runs.
pub fn running_since(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let trainer = containers.iter().find(|container| container.name == contract::CONTAINER)?;
    trainer.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0)
}

fn running_address(pod: &Pod) -> Option<IpAddr> {
    running_since(pod)?;
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_pods_of_our_stateful_set_count() {
        let owned = |uid: &str, controller: bool| {
            is_owned_by(
                &pod(json!({"metadata": {"name": "job-0", "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "job", "uid": uid, "controller": controller}
                ]}})),
                "set",
            )
        };
        assert!(owned("set", true) && !owned("other", true) && !owned("set", false));
    }

    #[test]
    fn a_pod_that_does_not_run_has_no_address() {
        let address = |state: serde_json::Value| {
            running_address(&pod(json!({"status": {"podIP": "10.0.0.7", "containerStatuses": [
                {"name": "trainer", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}
            ]}})))
        };
        assert_eq!(
            address(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})),
            Some([10, 0, 0, 7].into())
        );
        assert_eq!(address(json!({"waiting": {"reason": "CrashLoopBackOff"}})), None);
    }

    #[test]
    fn pods_hang_after_a_while() {
        let creating = json!({"status": {"phase": "Pending", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ContainerCreating"}}}
        ]}});
        assert!(!is_stuck_creating(&pod(creating.clone()), "2026-01-01T00:00:10Z".parse().unwrap()));
        assert!(is_stuck_creating(&pod(creating), "2026-01-01T00:00:30Z".parse().unwrap()));
    }

    #[test]
    fn the_newest_event_that_says_a_cause_is_taken() {
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
        assert_eq!(newest_message(events.clone(), &["FailedMount"], now).unwrap(), "secret \"s\" not found");
        assert_eq!(newest_message(events, &["FailedMount"], "2026-01-01T01:00:00Z".parse().unwrap()), None);
    }

    #[test]
    fn pods_are_in_the_order_of_their_ordinals() {
        let mut names = vec!["job-10", "job-2", "job-0"];
        names.sort_by_key(|name| ordinal(name));
        assert_eq!(names, ["job-0", "job-2", "job-10"]);
    }
}
