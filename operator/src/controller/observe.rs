//! Stage 1: reads the StatefulSet, its pods and the report of pod 0. Writes nothing to the cluster.

use std::time::{Duration, Instant};

use datjob_api::{
    contract,
    datjob::{DatJob, DatJobStatus},
    report::Report,
};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::{Api, ResourceExt as _};
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

pub mod pods;
mod warnings;

/// How long a cached pod is used before the operator lists the pods again.
const POD_CACHE_LIFETIME: Duration = Duration::from_mins(1);

/// The job's StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSetState {
    /// Its UID.
    pub uid: String,
    /// The attempt in its annotation.
    pub attempt: u32,
    /// Desired number of pods.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready: i32,
}

/// Result of reading the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReportState {
    /// Pod 0 does not run.
    #[default]
    NoPod,
    /// The report.
    Received(Box<Report>),
    /// Pod 0 runs, but its report cannot be read.
    Unreadable {
        /// Name of the pod.
        pod: String,
        /// The error.
        message: String,
        /// Number of consecutive failures while the pod was ready.
        failures: u32,
    },
}

/// Observed state of a job's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The StatefulSet of this job.
    pub stateful_set: Option<StatefulSetState>,
    /// Why the StatefulSet with this name does not belong to the job.
    pub conflict: Option<ApplyConflict>,
    /// The job's pods, sorted by ordinal; empty if they were not listed.
    pub pods: Vec<Pod>,
    /// The report.
    pub report: ReportState,
    /// The event that explains why pods are missing or do not start.
    pub warning: Option<WarningEvent>,
}

/// Observes a job. Reads no pods and no report if it is `finished`.
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
    let desired = DatJobStatus::desired_attempt(job.status.as_ref());
    match &set {
        Some(set) if set.attempt >= desired => {
            observe_running_attempt(context, identity, set, &mut observation).await?;
        }
        None if job.status.as_ref().is_none_or(|status| status.attempt == 0) => {}
        // Between two attempts, only the number of remaining pods matters.
        _ => observation.pods = pods::list_pods(context, identity).await?,
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
    let cached_pod = cached_pod(set, &cached);
    if cached_pod.is_none() {
        let pods = pods::list_pods(context, identity).await?;
        observation.pods = pods.into_iter().filter(|pod| pods::is_owned_by(pod, &set.uid)).collect();
        observation.warning = warnings::find_warning(context, identity, set, &observation.pods).await?;
    }
    let first = format!("{}-0", identity.name);
    let reporting_pod = cached_pod.or_else(|| {
        let pod = observation.pods.iter().find(|pod| pod.name_any() == first)?;
        Some(ReportingPod {
            pod: first.clone(),
            pod_uid: pod.uid()?,
            set_uid: set.uid.clone(),
            address: pods::running_address(pod)?,
            observed_at: Instant::now(),
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

/// The cached pod, if all pods are ready, the last report was read and the entry is fresh. A training job then costs one
/// read of its StatefulSet and one report.
fn cached_pod(set: &StatefulSetState, cached: &CachedJob) -> Option<ReportingPod> {
    cached.reporting_pod.clone().filter(|reporting_pod| {
        reporting_pod.set_uid == set.uid
            && set.replicas > 0
            && set.ready >= set.replicas
            && cached.failed_report_reads == 0
            && reporting_pod.observed_at.elapsed() < POD_CACHE_LIFETIME
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
            // Failures count only while the pod is ready.
            let ready =
                observation.pods.iter().any(|pod| pod.name_any() == reporting_pod.pod && pods::is_ready(pod));
            let before = context.cache.get(&identity.uid).failed_report_reads;
            ReportState::Unreadable {
                pod: reporting_pod.pod.clone(),
                message: error.to_string(),
                failures: if ready || observation.pods.is_empty() { before + 1 } else { 1 },
            }
        }
    }
}
