//! Stage 6: computes the new status from the previous one and the result of `apply`. Pure.
//!
//! The counters (attempt, generation, restarts) are in the status and only increase. Unknown values keep their previous
//! state, so a restarted operator or an unreadable report changes nothing.

use std::time::Duration;

use datjob_api::datjob::{DatJob, DatJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{
    apply::{ActiveJob, Applied},
    attempt::AttemptAction,
    blockers::{self, Blocker},
    observe::{Observation, pods},
    ownership::ApplyConflict,
};
use crate::{clock, conditions, events::Event, reports::schedule::ReportState, text::truncate};

mod active;
mod finish;
mod finished;
mod preparation;
mod report;
mod requeue;
mod restarts;
mod state;
mod storage;

pub use state::State;

/// Consecutive failures to read the report of a ready pod after which the job is stalled; about half a minute.
const MAX_FAILED_READS: u32 = 4;

/// Delay before the resources of a job that has just finished are released.
const RELEASE_DELAY: Duration = Duration::from_secs(1);
/// Maximum length of an image's name.
const MAX_IMAGE_BYTES: usize = 1024;

/// New status of a job and its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The new status.
    pub status: DatJobStatus,
    /// Events to publish.
    pub events: Vec<Event>,
    /// Delay until the next reconciliation; `None` for a finished job.
    pub requeue: Option<Duration>,
}

/// Computes the new status of a job. `now` is the operator's clock, as are all times in the status.
pub fn status(job: &DatJob, applied: &Applied, now: Timestamp) -> Outcome {
    let mut builder = StatusBuilder::new(job, now);
    match applied {
        Applied::Finished => builder.keep_finished(),
        Applied::Rejected(invalid) => builder.reject(invalid),
        Applied::Active(active) => builder.update_active(active),
    }
    builder.build()
}

/// Builds a status from the previous one.
struct StatusBuilder<'a> {
    job: &'a DatJob,
    previous: DatJobStatus,
    next: DatJobStatus,
    events: Vec<Event>,
    requeue: Option<Duration>,
    generation: i64,
    now: Timestamp,
}

impl<'a> StatusBuilder<'a> {
    fn new(job: &'a DatJob, now: Timestamp) -> Self {
        let previous = job.status.clone().unwrap_or_default();
        let generation = job.metadata.generation.unwrap_or_default();
        let mut next = previous.clone();
        next.observed_generation = generation;
        // Times in a status have whole seconds. With a fraction, they would differ from the stored ones.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        if !conditions::is_finished(&previous) {
            replace_future_times(&mut next, now);
        }
        Self { job, previous, next, events: Vec::new(), requeue: None, generation, now }
    }

    fn build(mut self) -> Outcome {
        if conditions::is_finished(&self.next) && !conditions::is_finished(&self.previous) {
            // The operator's own write triggers no reconciliation.
            self.requeue = Some(RELEASE_DELAY);
        }
        Outcome { status: self.next, events: self.events, requeue: self.requeue }
    }

    fn update_active(&mut self, active: &ActiveJob) {
        self.record_attempt(active);
        self.record_report(&active.observation);
        self.record_pods(active);
        let blocker = self.blocker(active);
        if self.finish_if_due(active) {
            return;
        }
        if self.exceeds_startup_deadline(active) {
            self.abandon_attempt(active, blocker.as_ref());
        } else {
            self.set_active(active, blocker.as_ref());
        }
        self.requeue = Some(self.next_check(active, blocker.as_ref()));
    }

    /// Records a new attempt: one that was just started, or one whose operator stopped before it wrote the status.
    fn record_attempt(&mut self, active: &ActiveJob) {
        let running = match (active.action, &active.observation.stateful_set) {
            (AttemptAction::Start(attempt), _) if active.conflict.is_none() => attempt,
            (AttemptAction::Keep, Some(set)) if set.attempt > self.previous.attempt => set.attempt,
            _ => return,
        };
        if running > self.previous.attempt {
            self.next.attempt = running;
            self.next.generation_at_start = self.previous.generation;
        }
        self.next.waiting_since = Some(Time(self.now));
        let replicas = self.job.spec.replicas;
        let name = self.job.name_any();
        let note = format!("Created StatefulSet {name} (attempt {running}, replicas {replicas}).");
        self.events.push(Event::normal("Created", format!("attempt {running}"), note));
    }

    fn record_pods(&mut self, active: &ActiveJob) {
        let observation = &active.observation;
        let trainer = observation.pods.first().and_then(|pod| pods::trainer(pod));
        // The kubelet reports the identifier once the image is on the node.
        if let Some(trainer) = trainer.filter(|trainer| !trainer.image_id.is_empty()) {
            self.next.image = truncate(&trainer.image, MAX_IMAGE_BYTES);
            self.next.image_id = truncate(&trainer.image_id, MAX_IMAGE_BYTES);
        }
        if self.next.start_time.is_none() && pods::count_running(&observation.pods) > 0 {
            // Not the kubelet's time: the deadline compares it with this clock.
            self.next.start_time = Some(Time(self.now));
        }
        let ready = if active.action == AttemptAction::Keep {
            observation.stateful_set.as_ref().map_or(0, |set| set.ready)
        } else {
            0
        };
        self.next.workers = format!("{ready}/{}", self.job.spec.replicas);
        if self.next.epoch.is_empty() {
            self.next.epoch = format!("0/{}", self.job.spec.training.schedule.epochs);
        }
    }

    /// A problem with a child or a pod; `None` once a world has formed.
    fn blocker(&self, active: &ActiveJob) -> Option<Blocker> {
        match &active.conflict {
            Some(ApplyConflict::Leftover { .. }) => return None,
            Some(conflict) => {
                return Some(Blocker::new(conflict.reason(), conflict.message().trim_end_matches('.'), ""));
            }
            None => {}
        }
        let observation = &active.observation;
        match active.action {
            AttemptAction::Keep => {}
            AttemptAction::AwaitTermination(_) => {
                return observation.pods.iter().find_map(|pod| blockers::stuck_termination(pod, self.now));
            }
            _ => return None,
        }
        match &observation.report {
            ReportState::Received(report) if state::is_formed(report.phase) => return None,
            ReportState::Unreadable { pod, message, failures } if *failures >= MAX_FAILED_READS => {
                let summary = format!("Cannot read the report of pod {pod}");
                return Some(Blocker::new("ReportUnreadable", summary, message));
            }
            _ => {}
        }
        let found = blockers::find(&observation.pods, observation.warning.as_ref(), self.now);
        match (&found, &observation.report) {
            (Some(blocker), _) if !blocker.may_pass => found,
            (_, ReportState::Received(report)) => {
                preparation::source_error(report, &self.job.name_any()).or(found)
            }
            _ => found,
        }
    }

    fn set(&mut self, kind: &str, value: bool, reason: &str, message: &str) {
        conditions::set(&mut self.next, kind, value, reason, message, self.generation, self.now);
    }

    /// Whether a world has formed in the current attempt.
    fn has_formed(&self) -> bool {
        self.next.generation > self.next.generation_at_start
    }
}

/// Replaces times that a leader wrote whose clock was ahead.
fn replace_future_times(status: &mut DatJobStatus, now: Timestamp) {
    clock::not_after(&mut status.start_time, now);
    clock::not_after(&mut status.waiting_since, now);
    if let Some(world) = &mut status.world {
        world.since.0 = world.since.0.min(now);
    }
}

#[cfg(test)]
mod tests;
