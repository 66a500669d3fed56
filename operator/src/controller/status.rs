//! Stage 5: the new status, from the old one and what was found and done. Pure.
//!
//! Counters (attempt, generation, restarts) live in the status and are only ever continued, never derived anew; what
//! is not known this time stays as it was: an operator that restarts, or one report that could not be read, changes
//! nothing.

use std::time::Duration;

use datjob_api::datjob::{DatJob, DatJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{
    apply::{Active, Applied},
    attempt::Step,
    blockers::{self, Blocker},
    observe::{self, ReportRead},
    ownership::Obstacle,
};
use crate::{conditions, events::Event, jitter};

mod describe;
mod ending;
mod report;
mod state;

pub use state::State;

/// How often a job that runs is looked at.
pub const POLL: Duration = Duration::from_secs(5);
/// When what the API server refused is tried again.
const RETRY_REFUSED: Duration = Duration::from_secs(30);
/// After so many reports in a row that could not be read from a ready pod, it is said in a condition.
const UNREAD_LIMIT: u32 = 6;

/// What is to be said of a job now.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The new status.
    pub status: DatJobStatus,
    /// Events that go with it.
    pub events: Vec<Event>,
    /// When to look again; never where the job is over.
    pub requeue: Option<Duration>,
}

/// The new status of a job.
pub fn status(job: &DatJob, applied: &Applied, now: Timestamp) -> Outcome {
    let mut draft = Draft::new(job, now);
    match applied {
        Applied::Settled => draft.settle(),
        Applied::Refused(invalid) => draft.refuse(invalid),
        Applied::Active(active) => draft.follow(active),
    }
    draft.finish()
}

/// A status in the making.
struct Draft<'a> {
    job: &'a DatJob,
    before: DatJobStatus,
    next: DatJobStatus,
    events: Vec<Event>,
    requeue: Option<Duration>,
    generation: i64,
    now: Timestamp,
}

impl<'a> Draft<'a> {
    fn new(job: &'a DatJob, now: Timestamp) -> Self {
        let before = job.status.clone().unwrap_or_default();
        let generation = job.metadata.generation.unwrap_or_default();
        let mut next = before.clone();
        next.observed_generation = generation;
        // Times in a status have whole seconds: with a fraction they would never equal what comes back.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self { job, before, next, events: Vec::new(), requeue: None, generation, now }
    }

    fn finish(self) -> Outcome {
        Outcome { status: self.next, events: self.events, requeue: self.requeue }
    }

    /// The job is over and stays as it is; only which version of the spec this speaks of follows.
    fn settle(&mut self) {
        for condition in &mut self.next.conditions {
            condition.observed_generation = Some(self.generation);
        }
    }

    fn follow(&mut self, active: &Active) {
        let key = format!("{}/poll", self.job.uid().unwrap_or_default());
        self.requeue = Some(jitter::within(&key, POLL, POLL + Duration::from_millis(500)));
        self.note_attempt(active);
        self.note_report(&active.observation.report);
        self.note_pods(active);
        let blocker = self.blocker(active);
        if self.end(active) {
            // The watch brings the job back at once; this is for the case that it does not.
            self.requeue = Some(Duration::from_secs(1));
            return;
        }
        if self.misses_startup_deadline(active) {
            self.give_up_attempt(active, blocker.as_ref());
            return;
        }
        self.describe(active, blocker.as_ref());
    }

    /// The attempt that runs: the one just started, or one that an operator started that could not note it.
    fn note_attempt(&mut self, active: &Active) {
        let running = match (active.step, &active.observation.stateful_set) {
            (Step::Start(attempt), _) if active.obstacle.is_none() => attempt,
            (Step::Keep, Some(set)) if set.attempt > self.before.attempt => set.attempt,
            _ => return,
        };
        if running > self.before.attempt {
            self.next.attempt = running;
            self.next.generation_at_start = self.before.generation;
        }
        self.next.waiting_since = Some(Time(self.now));
        let replicas = self.job.spec.replicas;
        let note =
            format!("Created StatefulSet {} with {replicas} pods (attempt {running}).", self.job.name_any());
        self.events.push(Event::normal("Created", format!("attempt {running}"), note));
    }

    fn note_pods(&mut self, active: &Active) {
        let observation = &active.observation;
        let first = observation.pods.iter().filter_map(observe::running_since).min();
        if self.next.start_time.is_none() {
            self.next.start_time = first.map(Time);
        }
        let ready = if active.step == Step::Keep {
            observation.stateful_set.as_ref().map_or(0, |set| set.ready)
        } else {
            0
        };
        self.next.workers = format!("{ready}/{}", self.job.spec.replicas);
        if self.next.epoch.is_empty() {
            self.next.epoch = format!("0/{}", self.job.spec.training.schedule.epochs);
        }
    }

    /// What only a person can mend: something in the way of a child, or of a pod. A world that trains is not blocked.
    fn blocker(&self, active: &Active) -> Option<Blocker> {
        match &active.obstacle {
            Some(Obstacle::Leftover { .. }) => return None,
            Some(obstacle) => {
                return Some(Blocker::new(obstacle.reason(), obstacle.sentence().trim_end_matches('.'), ""));
            }
            None => {}
        }
        if active.step != Step::Keep {
            return None;
        }
        let observation = &active.observation;
        match &observation.report {
            ReportRead::Read(report) if state::is_formed(report.phase) => return None,
            ReportRead::Unread { pod, message, times } if *times >= UNREAD_LIMIT => {
                let head = format!("Cannot read the report of pod {pod}");
                return Some(Blocker::new("ReportUnreadable", head, message));
            }
            _ => {}
        }
        blockers::find(&observation.pods, observation.warning.as_ref(), self.now)
    }

    fn set(&mut self, kind: &str, value: bool, reason: &str, message: &str) {
        conditions::set(&mut self.next, kind, value, reason, message, self.generation, self.now);
    }

    /// Whether a world was formed in the current attempt.
    fn has_formed(&self) -> bool {
        self.next.generation > self.next.generation_at_start
    }
}

#[cfg(test)]
mod tests;
