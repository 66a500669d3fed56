//! The decision who is in the world: a pure function of the heartbeats and of the time.

use std::{collections::BTreeMap, time::Duration};

use datjob_api::report::{Failure, FailureReason, StorageTrouble, WaitingForStorage};

use super::{
    lease::{Instant, LOST_AFTER, Leases, is_recent},
    message::{Heartbeat, PodWait, Refused, State, Verdict},
    pod_history::PodHistory,
};
use crate::failure::may_be_consequence;

mod waits;

/// A world that lived for so long starts the backoff anew.
const STABLE_AFTER: Duration = Duration::from_mins(5);
/// The wait after a generation or a verdict that could not be recorded.
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest wait between a world's end and the next world.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// What a person can look for if all ranks wait for each other.
const DEADLOCK_ADVICE: &str = "a connection between two pods is cut, or a GPU does not end its work: check the network between \
                               these pods, and the GPUs";

/// The members of a job and the world that they form.
#[derive(Clone, Debug)]
pub struct Quorum {
    pods: u32,
    generation: u32,
    members: BTreeMap<u32, Member>,
    histories: BTreeMap<u32, PodHistory>,
    leases: Leases,
    /// The generation that the host is recording.
    proposed: Option<u32>,
    world: Option<Formed>,
    /// Worlds that ended young, since the last that did not.
    short_lives: u32,
    not_before: Instant,
    last_failure: Option<(u32, Failure)>,
    /// The failure that ends the job once it is recorded.
    final_failure: Option<FinalFailure>,
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq)]
struct FinalFailure {
    failure: Failure,
    is_recording: bool,
    /// When it is recorded, if it is not being recorded.
    not_before: Instant,
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    incarnation: u64,
    last_heartbeat: Instant,
    state: State,
    storage: Option<StorageTrouble>,
    wait: Option<PodWait>,
}

#[derive(Clone, Debug, PartialEq)]
struct Formed {
    generation: u32,
    since: Instant,
    incarnations: BTreeMap<u32, u64>,
}

/// What a quorum decided at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The world of this generation goes on.
    Keep(u32),
    /// The world of this generation ended.
    End {
        /// The generation that ended.
        generation: u32,
        /// Why, as a sentence.
        reason: String,
    },
    /// All pods are ready: once this generation is recorded, its world begins.
    Propose(u32),
    /// This generation is being recorded.
    Recording(u32),
    /// A failure ends the job once it is recorded.
    ProposeVerdict(Failure),
    /// No world forms, because the failure of the job is being recorded.
    RecordingVerdict,
    /// There is no world yet.
    Wait {
        /// Pods without a recent heartbeat.
        missing: Vec<u32>,
    },
    /// The job has ended.
    Over,
}

impl Quorum {
    /// A quorum of `pods` pods, in a job in which `generation` worlds were formed before.
    pub fn new(pods: u32, generation: u32) -> Self {
        Self {
            pods,
            generation,
            members: BTreeMap::new(),
            histories: BTreeMap::new(),
            leases: Leases::default(),
            proposed: None,
            world: None,
            short_lives: 0,
            not_before: Duration::ZERO,
            last_failure: None,
            final_failure: None,
            verdict: None,
        }
    }

    /// Records that the host runs at this moment. Returns how long it was stalled before, if it was.
    pub fn tick(&mut self, now: Instant) -> Option<Duration> {
        // After the job's end the agents are silent.
        self.leases.tick(now).filter(|_| self.verdict.is_none())
    }

    /// Records the state and the failure that a pod sent. Rejects a superseded pod, and a generation that was never recorded: all
    /// later ones would have to be higher.
    pub fn record_heartbeat(&mut self, now: Instant, heartbeat: &Heartbeat) -> Result<(), Refused> {
        self.tick(now);
        if heartbeat.pod >= self.pods {
            return Ok(());
        }
        let generation = heartbeat.state.generation().unwrap_or(0);
        if generation > self.generation {
            let (ours, theirs) = (self.generation, generation);
            return Err(Refused::UnknownGeneration { pod: heartbeat.pod, ours, theirs });
        }
        self.check_pod(heartbeat)?;
        if let Some(failure) = &heartbeat.failure {
            self.record_failure(generation, failure);
        }
        let Heartbeat { pod, incarnation, state, .. } = *heartbeat;
        let (storage, wait) = (heartbeat.storage.clone(), heartbeat.wait.clone());
        self.members.insert(pod, Member { incarnation, last_heartbeat: now, state, storage, wait });
        Ok(())
    }

    /// Rejects the heartbeat of a superseded pod.
    fn check_pod(&mut self, heartbeat: &Heartbeat) -> Result<(), Refused> {
        let Heartbeat { pod, pod_uid, state, .. } = heartbeat;
        let history = self.histories.entry(*pod).or_insert_with(|| PodHistory::new(pod_uid));
        if history.record(pod_uid, state.generation()) {
            return Ok(());
        }
        let successor = history.current().to_owned();
        Err(Refused::Superseded { pod: *pod, pod_uid: pod_uid.clone(), successor })
    }

    /// Keeps, of the failures of one generation, the first that is not the consequence of another.
    fn record_failure(&mut self, generation: u32, failure: &Failure) {
        if failure.reason.is_final() && self.verdict.is_none() && self.final_failure.is_none() {
            let failure = failure.clone();
            self.final_failure =
                Some(FinalFailure { failure, is_recording: false, not_before: Duration::ZERO });
        }
        let better = self.last_failure.as_ref().is_none_or(|(known, old)| {
            generation > *known || (generation == *known && may_be_consequence(old))
        });
        if better {
            let mut failure = failure.clone();
            if failure.reason == FailureReason::Hang
                && let Some(waits) = self.waits_of(generation)
            {
                failure.message = format!("{}; {waits}", failure.message);
            }
            self.last_failure = Some((generation, failure));
        }
    }

    /// The job has succeeded: its results are durable. They win over a failure.
    pub fn succeed(&mut self) {
        self.final_failure = None;
        self.verdict = Some(Verdict::Succeeded);
    }

    /// The job has failed: this failure is durable. It may be another one than the proposed failure, and an earlier one.
    pub fn confirm_failure(&mut self, failure: Failure) {
        self.final_failure = None;
        self.verdict.get_or_insert(Verdict::Failed(failure));
    }

    /// Takes back the proposed failure, because it was not recorded. It is proposed again a second later.
    pub fn postpone_failure(&mut self, now: Instant) {
        if let Some(proposed) = &mut self.final_failure {
            proposed.is_recording = false;
            proposed.not_before = now + RECORD_AGAIN_AFTER;
        }
    }

    /// How the job ended, if it has.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The generation that runs now, if one does.
    pub fn running(&self) -> Option<u32> {
        self.world.as_ref().map(|world| world.generation)
    }

    /// How many worlds were formed.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Number of pods with a recent heartbeat that have their data.
    pub fn joined(&self, now: Instant) -> u32 {
        let joined = |member: &&Member| self.is_present(member, now) && member.state != State::Preparing;
        self.members.values().filter(joined).count() as u32
    }

    /// The pods with a recent heartbeat that wait for their storage.
    pub fn waiting_for_storage(&self, now: Instant) -> Option<WaitingForStorage> {
        let waiting: Vec<(u32, &StorageTrouble)> = self
            .members
            .iter()
            .filter(|(_, member)| self.is_present(member, now))
            .filter_map(|(pod, member)| Some((*pod, member.storage.as_ref()?)))
            .collect();
        let (pod, trouble) = *waiting.first()?;
        Some(WaitingForStorage { pods: waiting.len() as u32, pod, trouble: trouble.clone() })
    }

    /// Why the last world ended, or could not begin.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref().map(|(_, failure)| failure)
    }

    /// Decides what is to be at this moment, and takes it as done.
    pub fn decide(&mut self, now: Instant) -> Decision {
        self.tick(now);
        if self.verdict.is_some() {
            self.world = None;
            return Decision::Over;
        }
        if let Some(proposed) = &mut self.final_failure
            && !proposed.is_recording
            && now >= proposed.not_before
        {
            proposed.is_recording = true;
            return Decision::ProposeVerdict(proposed.failure.clone());
        }
        if let Some(world) = &self.world {
            let deadlock = self.all_wait(world);
            let Some(reason) = self.broken(world, now).or_else(|| deadlock.clone()) else {
                return Decision::Keep(world.generation);
            };
            let generation = world.generation;
            self.short_lives =
                if now.saturating_sub(world.since) > STABLE_AFTER { 1 } else { self.short_lives + 1 };
            self.not_before = now + backoff(self.short_lives);
            self.world = None;
            // A failure of an earlier world is not why this one ended.
            self.last_failure.take_if(|(failed, _)| *failed < generation);
            if let Some(cause) = deadlock {
                let failure = Failure::new(FailureReason::Hang, format!("{cause}; {DEADLOCK_ADVICE}"));
                self.last_failure.get_or_insert((generation, failure));
            }
            self.attribute_to_storage(generation, now);
            return Decision::End { generation, reason };
        }
        if let Some(generation) = self.proposed {
            return Decision::Recording(generation);
        }
        if self.final_failure.is_some() {
            return Decision::RecordingVerdict;
        }
        let missing = self.missing(now);
        if !missing.is_empty() || now < self.not_before {
            return Decision::Wait { missing };
        }
        let generation = self.generation.saturating_add(1);
        self.proposed = Some(generation);
        Decision::Propose(generation)
    }

    /// Forms the proposed world, whose generation is durable now. `None` if not all pods are ready any more: no pod knows of
    /// the generation yet, and it is proposed again.
    pub fn commit(&mut self, now: Instant) -> Option<u32> {
        self.tick(now);
        let generation = self.proposed.take()?;
        let is_ending = self.verdict.is_some() || self.final_failure.is_some();
        if is_ending || !self.missing(now).is_empty() {
            return None;
        }
        self.generation = generation;
        let incarnations = self.members.iter().map(|(pod, member)| (*pod, member.incarnation)).collect();
        self.world = Some(Formed { generation, since: now, incarnations });
        Some(generation)
    }

    /// Takes back the proposed world, because its generation cannot be recorded at the moment. The next one has the same
    /// generation.
    pub fn postpone(&mut self, now: Instant) {
        if self.proposed.take().is_some() {
            self.not_before = now + RECORD_AGAIN_AFTER;
        }
    }

    /// Takes back the proposed world, because its generation can never be recorded.
    pub fn abandon(&mut self, failure: &Failure) {
        self.proposed = None;
        self.record_failure(self.generation, failure);
    }

    /// The pods that cannot be in a new world. A renewed lease is not enough: a new world requires a recent heartbeat.
    fn missing(&self, now: Instant) -> Vec<u32> {
        let ready = |pod: &u32| {
            self.members.get(pod).is_some_and(|member| {
                is_recent(member.last_heartbeat, now)
                    && !matches!(member.state, State::Preparing | State::Running(_))
            })
        };
        (0..self.pods).filter(|pod| !ready(pod)).collect()
    }

    /// Attributes the end of a world to the storage if ranks lost a peer while a pod waited for its storage: the collective timed
    /// out first.
    fn attribute_to_storage(&mut self, generation: u32, now: Instant) {
        let waits =
            |member: &&Member| self.is_present(member, now) && member.state == State::Running(generation);
        let trouble = self.members.values().filter(waits).find_map(|member| member.storage.as_ref());
        if let Some(trouble) = trouble
            && self.last_failure.as_ref().is_some_and(|(_, failure)| may_be_consequence(failure))
        {
            let failure = Failure::new(FailureReason::Storage, trouble.message.clone());
            self.last_failure = Some((generation, failure));
        }
    }

    /// Why `world` cannot go on, if it cannot.
    fn broken(&self, world: &Formed, now: Instant) -> Option<String> {
        world.incarnations.iter().find_map(|(pod, incarnation)| {
            let Some(member) = self.members.get(pod) else {
                return Some(format!("no heartbeat from pod {pod}"));
            };
            if member.incarnation != *incarnation {
                return Some(format!("pod {pod} was replaced or restarted"));
            }
            if !self.is_present(member, now) {
                return Some(format!("no heartbeat from pod {pod} for {} s", LOST_AFTER.as_secs()));
            }
            match member.state {
                State::Idle { ended: Some(ended) } if ended >= world.generation => {
                    Some(format!("a worker of pod {pod} exited"))
                }
                _ => None,
            }
        })
    }

    fn is_present(&self, member: &Member, now: Instant) -> bool {
        self.leases.holds(member.last_heartbeat, now)
    }
}

fn backoff(short_lives: u32) -> Duration {
    // The first end is followed by a new world at once: a single lost pod should cost no more than its replacement.
    match short_lives {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 2).min(10)).min(LONGEST_BACKOFF),
    }
}

#[cfg(test)]
mod tests;
