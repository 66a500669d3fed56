//! The decision who is in the world: a pure function of the heartbeats and of the time.

use std::{collections::BTreeMap, time::Duration};

use datjob_api::report::{Failure, StorageTrouble, WaitingForStorage};

use super::{
    lease::{Instant, LOST_AFTER, Leases, is_recent},
    message::{Heartbeat, PodWait, Refused, State, Verdict},
    pod_history::PodHistory,
};

mod failures;
mod waits;

use failures::FinalFailure;
pub use failures::POD_RETRY_AFTER;

/// A world that lived for so long starts the backoff anew.
const STABLE_AFTER: Duration = Duration::from_mins(5);
/// The wait after a generation or a verdict that could not be recorded.
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest wait between a world's end and the next world.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

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
    /// Whether pods retry after failures that would end a job that has never trained.
    retries_pods: bool,
    has_trained: bool,
    /// The failure that ends the job once it is recorded.
    final_failure: Option<FinalFailure>,
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    incarnation: u64,
    last_heartbeat: Instant,
    state: State,
    storage: Option<StorageTrouble>,
    wait: Option<PodWait>,
    /// Why the pod cannot join.
    failure: Option<Failure>,
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
            retries_pods: false,
            has_trained: false,
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
        self.has_trained |= heartbeat.trains;
        let Heartbeat { pod, incarnation, state, .. } = *heartbeat;
        let is_of_pod = |failure: &&Failure| state == State::Preparing && self.is_of_pod(failure);
        let failure = heartbeat.failure.as_ref().filter(is_of_pod).cloned();
        if let Some(of_world) = heartbeat.failure.as_ref().filter(|_| failure.is_none()) {
            self.record_failure(now, generation, of_world);
        }
        let (storage, wait) = (heartbeat.storage.clone(), heartbeat.wait.clone());
        self.members.insert(pod, Member { incarnation, last_heartbeat: now, state, storage, wait, failure });
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
            self.not_before = self.not_before.max(now + backoff(self.short_lives));
            self.world = None;
            // A failure of an earlier world is not why this one ended.
            self.last_failure.take_if(|(failed, _)| *failed < generation);
            if let Some(deadlock) = deadlock {
                self.last_failure.get_or_insert_with(|| (generation, waits::failure(&deadlock)));
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
            self.not_before = self.not_before.max(now + RECORD_AGAIN_AFTER);
        }
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
