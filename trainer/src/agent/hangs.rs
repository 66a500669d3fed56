//! Which workers hang: those that make no progress while others wait for them. Pure.
//!
//! A worker is busy or waits for other ranks or its device. One that waits never hangs: somebody else is late. If all ranks of
//! the world wait, the rendezvous ends the world.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant as Clock},
};

use crate::{
    rendezvous::PodWait,
    worker_protocol::{Pulse, Stage},
};

/// Time since some fixed moment; nothing here reads a clock.
type Instant = Duration;

/// The shortest deadline.
const SHORTEST_DEADLINE: Duration = Duration::from_mins(1);
/// A deadline is this number times the longest time between two pulses.
const DEADLINE_FACTOR: u32 = 10;
/// The deadline of the first pulses of a stage, before its usual times are known.
const FIRST_DEADLINE: Duration = Duration::from_mins(10);
/// The number of these first pulses.
const FIRST_PULSES: u32 = 3;
/// A worker sends a pulse every second. Without one for so long, its process is stopped.
const SILENT_AFTER: Duration = Duration::from_mins(1);
/// Without a pulse for so long, it is unknown whether a worker still waits.
const LATE_AFTER: Duration = Duration::from_secs(5);
/// An agent that did nothing for so long was stalled: it received no pulses.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The workers of a pod in one generation.
#[derive(Debug)]
pub(super) struct HangDetector {
    /// The moment from which times count.
    begin: Clock,
    workers: BTreeMap<u32, Worker>,
    last_tick: Instant,
}

#[derive(Debug)]
struct Worker {
    last_pulse: Instant,
    last_progress: Instant,
    count: u64,
    waits_in: Option<String>,
    stage: Stage,
    /// The pulses of each stage so far.
    paces: BTreeMap<Stage, Pace>,
}

/// The progress of a worker in a stage.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Number of pulses with progress.
    pulses: u32,
    /// The longest time between two of them while the worker was busy.
    longest: Duration,
}

impl Pace {
    fn deadline(self) -> Duration {
        if self.pulses < FIRST_PULSES {
            return FIRST_DEADLINE;
        }
        self.longest.saturating_mul(DEADLINE_FACTOR).max(SHORTEST_DEADLINE)
    }
}

impl Worker {
    fn new(now: Instant) -> Self {
        Self {
            last_pulse: now,
            last_progress: now,
            count: 0,
            waits_in: None,
            stage: Stage::Starting,
            paces: BTreeMap::new(),
        }
    }

    fn deadline(&self) -> Duration {
        self.paces.get(&self.stage).copied().unwrap_or_default().deadline()
    }

    /// Whether it has made no progress until its deadline.
    fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_sub(self.last_progress) > self.deadline()
    }
}

impl Default for HangDetector {
    fn default() -> Self {
        Self { begin: Clock::now(), workers: BTreeMap::new(), last_tick: Duration::ZERO }
    }
}

impl HangDetector {
    /// The time, for the other functions.
    pub(super) fn now(&self) -> Instant {
        self.begin.elapsed()
    }

    /// Watches a worker that has started.
    pub(super) fn add(&mut self, rank: u32, now: Instant) {
        self.workers.insert(rank, Worker::new(now));
    }

    /// Forgets a worker that has ended.
    pub(super) fn remove(&mut self, rank: u32) {
        self.workers.remove(&rank);
    }

    /// Records that a worker begins a stage.
    pub(super) fn stage(&mut self, rank: u32, stage: Stage, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&rank) {
            worker.stage = stage;
            worker.last_progress = now;
        }
    }

    /// Records a pulse.
    pub(super) fn pulse(&mut self, rank: u32, pulse: Pulse, now: Instant) {
        let Some(worker) = self.workers.get_mut(&rank) else { return };
        worker.last_pulse = now;
        if pulse.count != worker.count {
            let pace = worker.paces.entry(worker.stage).or_default();
            pace.pulses = pace.pulses.saturating_add(1);
            if worker.waits_in.is_none() {
                pace.longest = pace.longest.max(now.saturating_sub(worker.last_progress));
            }
            worker.last_progress = now;
        }
        worker.count = pulse.count;
        worker.waits_in = pulse.waits_in;
    }

    /// Records that the agent runs. After it was stalled, all deadlines start anew.
    pub(super) fn tick(&mut self, now: Instant) {
        let is_stall = now.saturating_sub(self.last_tick) > STALLED_AFTER;
        self.last_tick = now;
        if is_stall {
            for worker in self.workers.values_mut() {
                (worker.last_pulse, worker.last_progress) = (now, now);
            }
        }
    }

    /// The workers that hang, each with a sentence about it. `waits_for_storage` says which wait for their storage instead.
    pub(super) fn hung(&self, now: Instant, waits_for_storage: impl Fn(u32) -> bool) -> Vec<(u32, String)> {
        let sentence = |rank: u32, worker: &Worker| {
            let silence = now.saturating_sub(worker.last_pulse);
            if silence > SILENT_AFTER {
                return Some(format!(
                    "the worker has sent no pulse for {} s in stage {}: its process is stopped, or it gets no CPU time",
                    silence.as_secs(),
                    worker.stage
                ));
            }
            let is_hung = worker.waits_in.is_none() && worker.is_overdue(now) && !waits_for_storage(rank);
            is_hung.then(|| {
                let idle = now.saturating_sub(worker.last_progress).as_secs();
                let deadline = worker.deadline().as_secs();
                format!(
                    "the worker has made no progress for {idle} s in stage {} while it computed (deadline: {deadline} s); its \
                     log has its stack",
                    worker.stage
                )
            })
        };
        self.workers.iter().filter_map(|(rank, worker)| Some((*rank, sentence(*rank, worker)?))).collect()
    }

    /// What the workers wait in, if all of them wait for other ranks or their device. One that has stopped sending pulses does
    /// not wait, whatever its last pulse was: the others wait for it.
    pub(super) fn wait(&self, now: Instant) -> Option<PodWait> {
        let waits_in = |worker: &Worker| {
            let has_pulse = now.saturating_sub(worker.last_pulse) <= LATE_AFTER;
            worker.waits_in.clone().filter(|_| has_pulse)
        };
        let mut operations = self.workers.values().map(waits_in);
        let operation = operations.next()??;
        let all_wait = operations.all(|operation| operation.is_some());
        let is_overdue = self.workers.values().all(|worker| worker.is_overdue(now));
        all_wait.then_some(PodWait { operation, is_overdue })
    }
}

#[cfg(test)]
mod tests;
