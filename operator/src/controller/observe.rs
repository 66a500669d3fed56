//! Stage 1: reads the state of a job's objects and its report from what the operator watches and polls. Writes nothing.

use std::sync::Arc;

use datjob_api::datjob::{DatJob, DatJobStatus};
use kube::ResourceExt as _;

use super::{
    Context,
    blockers::WarningEvent,
    identity::Identity,
    ownership::{self, ApplyConflict},
    watch::{Pod, StatefulSetState},
};
use crate::{
    calls::CallError,
    reports::schedule::{ReportState, Target},
};

pub mod event_lists;
pub mod pods;
mod warnings;

/// Observed state of a job's objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The StatefulSet of this job.
    pub stateful_set: Option<Arc<StatefulSetState>>,
    /// Why the StatefulSet with this name does not belong to the job.
    pub conflict: Option<ApplyConflict>,
    /// The job's pods, sorted by ordinal.
    pub pods: Vec<Arc<Pod>>,
    /// The report.
    pub report: ReportState,
    /// The event that explains why pods are missing or do not start.
    pub warning: Option<WarningEvent>,
}

impl Observation {
    /// Whether all pods of the StatefulSet are ready.
    pub fn is_complete(&self) -> bool {
        self.stateful_set.as_ref().is_none_or(|set| set.ready >= set.replicas)
    }

    /// Whether all pods exist and none has a node.
    pub fn waits_for_nodes(&self) -> bool {
        let replicas = self.stateful_set.as_ref().map_or(0, |set| set.replicas);
        let has_node = |pod: &Arc<Pod>| pod.spec.node_name.is_some();
        self.pods.len() as i32 == replicas && !self.pods.iter().any(has_node)
    }
}

/// Observes a job. Ignores pods and report of a job that is `finished`.
pub async fn observe(
    context: &Context,
    job: &DatJob,
    identity: &Identity,
    finished: bool,
) -> Result<Observation, CallError> {
    let found = context.children.stateful_sets.get(identity, &identity.name);
    let conflict = found
        .as_ref()
        .and_then(|set| ownership::find_conflict("StatefulSet", &identity.name, &set.owner, identity));
    let stateful_set = found.filter(|_| conflict.is_none());
    let mut observation = Observation { stateful_set, conflict, ..Observation::default() };
    if !finished && observation.conflict.is_none() {
        observation.pods = pods::of_job(context, identity);
    }
    let desired = DatJobStatus::desired_attempt(job.status.as_ref());
    let current = observation.stateful_set.clone().filter(|set| !finished && set.attempt >= desired);
    let Some(set) = current else {
        // Between two attempts, only the number of remaining pods matters.
        context.reports.set_target(identity, None);
        context.cache.update(&identity.uid, |job| job.pods_missing_since = None);
        return Ok(observation);
    };
    observation.pods.retain(|pod| pods::is_owned_by(pod, &set.uid));
    observation.warning = warnings::find_warning(context, identity, &set, &observation.pods).await?;
    observation.report = context.reports.set_target(identity, target(identity, &set, &observation.pods));
    Ok(observation)
}

/// The pod that serves the report, if it runs.
fn target(identity: &Identity, set: &StatefulSetState, pods: &[Arc<Pod>]) -> Option<Target> {
    let first = format!("{}-0", identity.name);
    let pod = pods.iter().find(|pod| pod.name_any() == first)?;
    Some(Target {
        pod_uid: pod.uid()?,
        address: pods::running_address(pod)?,
        attempt: set.attempt,
        ready: pods::is_ready(pod),
        pods_hash: pods::hash_states(pods),
        pod: first,
    })
}
