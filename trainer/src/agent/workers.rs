//! The worker processes of a pod: started together, ended together.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use datjob_api::{
    Training,
    report::{EvaluationPart, Failure, FailureReason, Phase, StorageTrouble},
};
use tokio::{sync::mpsc, task::JoinSet, time};

use super::{
    Board, Config,
    assignment::{assignment, device_variable},
    hangs::HangDetector,
    oom_kills,
    progress_log::ProgressLog,
    worker_process::{End, Killer, Order, What, WorkersEvent, supervise, unexplained},
};
use crate::{
    failure::may_be_consequence,
    rendezvous::{PodWait, State, World},
    worker_protocol::{EvaluationState, Event},
};

/// How long the other workers of a pod have to say why they end, after one lost its peer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The workers of this pod, in at most one generation at a time.
#[derive(Debug)]
pub struct Workers {
    events: mpsc::UnboundedSender<WorkersEvent>,
    state: State,
    /// One for each worker, by rank.
    orders: BTreeMap<u32, mpsc::UnboundedSender<Order>>,
    supervisors: JoinSet<()>,
    finished: usize,
    /// Failures that workers reported, by rank.
    reported: BTreeMap<u32, Failure>,
    failure: Option<Failure>,
    /// Whether one of them wrote a checkpoint and left.
    has_left: bool,
    /// Whether the one that said it last trains.
    are_training: bool,
    /// The faults of storage that workers wait for, by rank.
    storage: BTreeMap<u32, StorageTrouble>,
    hangs: HangDetector,
    /// Why workers that are being ended hang, by rank.
    hung: BTreeMap<u32, String>,
    /// Number of kills because memory ran out, before the workers started.
    oom_kills: Option<u64>,
    is_in_pod: bool,
    progress_log: ProgressLog,
    /// The moment from which the times of `progress_log` count.
    created: Instant,
}

impl Workers {
    /// No workers yet; what happens to them later comes through `events`.
    ///
    /// Unbounded, since [`Workers::stop`] waits for those who send; a worker sends about two events a second.
    pub fn new(events: mpsc::UnboundedSender<WorkersEvent>) -> Self {
        Self {
            events,
            state: State::Idle { ended: None },
            orders: BTreeMap::new(),
            supervisors: JoinSet::new(),
            finished: 0,
            reported: BTreeMap::new(),
            failure: None,
            has_left: false,
            are_training: false,
            storage: BTreeMap::new(),
            hangs: HangDetector::default(),
            hung: BTreeMap::new(),
            oom_kills: None,
            is_in_pod: false,
            progress_log: ProgressLog::default(),
            created: Instant::now(),
        }
    }

    /// What they are doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether there were any and all have ended.
    pub fn have_ended(&self) -> bool {
        matches!(self.state, State::Done(_) | State::Idle { ended: Some(_) })
    }

    /// Why the last ones ended.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Whether the last ones wrote a checkpoint before they ended.
    pub fn have_left(&self) -> bool {
        self.has_left
    }

    /// The fault of storage that one of them has waited for longest.
    pub fn storage_trouble(&self) -> Option<&StorageTrouble> {
        self.storage.values().min_by_key(|trouble| trouble.since)
    }

    /// Starts them all in `world`.
    pub fn start(&mut self, config: &Config, training: &Training, world: &World) {
        let generation = world.generation;
        self.state = State::Running(generation);
        self.finished = 0;
        self.failure = None;
        self.has_left = false;
        self.are_training = false;
        self.reported.clear();
        self.storage.clear();
        self.hangs = HangDetector::default();
        self.hung.clear();
        self.oom_kills = oom_kills::count();
        self.is_in_pod = config.files.mounted.is_some();
        self.progress_log = ProgressLog::default();
        for local_rank in 0..config.workers {
            let assignment = assignment(config, training, world, local_rank);
            let device = device_variable(config, local_rank);
            let (orders, received) = mpsc::unbounded_channel();
            let events = self.events.clone();
            let rank = assignment.rank;
            self.hangs.add(rank, self.hangs.now());
            self.supervisors.spawn(async move {
                if let Some(end) = supervise(&assignment, device, received, &events).await {
                    // An agent that has stopped listening is ending itself.
                    let _ = events.send(WorkersEvent { generation, rank, what: What::Ended(end) });
                }
            });
            self.orders.insert(rank, orders);
        }
    }

    /// Logs the progress of rank 0, if a line is due.
    pub fn log_progress(&mut self) {
        let line = self.progress_log.due(self.created.elapsed());
        if let (State::Running(_), Some(line)) = (self.state, line) {
            line.write();
        }
    }

    /// Ends those that hang.
    pub fn end_hung(&mut self) {
        let now = self.hangs.now();
        self.hangs.tick(now);
        if !matches!(self.state, State::Running(_)) {
            return;
        }
        for (rank, sentence) in self.hangs.hung(now, |rank| self.storage.contains_key(&rank)) {
            if self.hung.contains_key(&rank) {
                continue;
            }
            tracing::warn!(rank, "Ending a worker that hangs: {sentence}.");
            self.hung.insert(rank, sentence);
            if let Some(orders) = self.orders.get(&rank) {
                // One that has ended meanwhile listens no more.
                let _ = orders.send(Order::Abort);
            }
        }
    }

    /// What they wait in, if all of them wait for other ranks or their device.
    pub fn wait(&self) -> Option<PodWait> {
        match self.state {
            State::Running(_) => self.hangs.wait(self.hangs.now()),
            State::Preparing | State::Idle { .. } | State::Done(_) => None,
        }
    }

    /// Asks them to write a checkpoint and to exit.
    pub fn ask_to_leave(&self) {
        for orders in self.orders.values() {
            // One that has ended already listens no more.
            let _ = orders.send(Order::Leave);
        }
    }

    /// Whether they would soon write a checkpoint: they train. An evaluation keeps its results anyway.
    pub fn can_leave(&self) -> bool {
        matches!(self.state, State::Running(_)) && self.are_training
    }

    /// Ends them all and waits until they are gone.
    pub async fn stop(&mut self) {
        for orders in std::mem::take(&mut self.orders).into_values() {
            let _ = orders.send(Order::Stop);
        }
        while self.supervisors.join_next().await.is_some() {}
        self.storage.clear();
        if let State::Running(generation) = self.state {
            self.state = State::Idle { ended: Some(generation) };
        }
    }

    /// Records an event; returns whether the next heartbeat is due at once.
    pub async fn note(&mut self, event: WorkersEvent, board: &Board) -> bool {
        let running = self.state == State::Running(event.generation);
        if !running && self.state != (State::Idle { ended: Some(event.generation) }) {
            return false;
        }
        match event.what {
            What::Sent(Event::Failed(failure)) => {
                self.reported.insert(event.rank, failure);
                false
            }
            What::Sent(Event::Training(are_training)) => {
                self.are_training = are_training;
                false
            }
            What::Sent(Event::Stage(stage)) => {
                self.hangs.stage(event.rank, stage, self.hangs.now());
                false
            }
            What::Sent(Event::Pulse(pulse)) => {
                self.hangs.pulse(event.rank, pulse, self.hangs.now());
                false
            }
            What::Sent(Event::Left) => {
                self.has_left = true;
                false
            }
            What::Sent(Event::Storage(trouble)) => {
                self.storage.remove(&event.rank);
                self.storage.extend(trouble.filter(|_| running).map(|trouble| (event.rank, trouble)));
                true
            }
            What::Sent(sent) => {
                if running {
                    let now = self.created.elapsed();
                    if let Some(line) = self.progress_log.record(now, &sent) {
                        line.write();
                    }
                    board.evaluation(self.progress_log.evaluation(now));
                    apply_event(sent, board);
                }
                false
            }
            What::Ended(end) if end.is_success() => {
                self.storage.remove(&event.rank);
                self.hangs.remove(event.rank);
                self.finished += 1;
                let all = running && self.finished == self.orders.len();
                if all {
                    self.state = State::Done(event.generation);
                }
                all
            }
            What::Ended(end) => {
                if let Some(Err(sentence)) = &end.log_file {
                    tracing::warn!(rank = event.rank, "{sentence}.");
                    board.warning(sentence.clone());
                }
                self.record_failure(event.rank, end);
                self.storage.remove(&event.rank);
                if running {
                    self.end_the_others().await;
                }
                true
            }
        }
    }

    /// Keeps the first failure that is not the consequence of another.
    fn record_failure(&mut self, rank: u32, End { status, log_tail, log_file }: End) {
        let killer = self.killer();
        let reported = self.reported.remove(&rank);
        let mut failure = match self.hung.remove(&rank) {
            Some(sentence) => Failure::of_rank(FailureReason::Hang, rank, sentence),
            None => reported.unwrap_or_else(|| unexplained(rank, &status, &log_tail, killer)),
        };
        failure.log_tail = log_tail;
        failure.log_file = log_file.and_then(Result::ok);
        // The collective timed out while the storage had a fault.
        if let Some(trouble) = self.storage_trouble().filter(|_| may_be_consequence(&failure)) {
            failure.message.clone_from(&trouble.message);
            failure.reason = FailureReason::Storage;
        }
        if self.failure.as_ref().is_none_or(may_be_consequence) {
            self.failure = Some(failure);
        }
    }

    /// The sender of a SIGKILL to a worker that has just ended.
    fn killer(&self) -> Killer {
        match (self.oom_kills, oom_kills::count()) {
            (Some(before), Some(now)) if now > before && self.is_in_pod => Killer::KernelInPod,
            (Some(before), Some(now)) if now > before => Killer::KernelOnWorkstation,
            (Some(_), Some(_)) => Killer::Process,
            _ => Killer::Unknown,
        }
    }

    /// The others of this pod wait for a peer that is gone. Where this one lost its peer, the peer may be among them
    /// and about to say why.
    async fn end_the_others(&mut self) {
        if self.failure.as_ref().is_some_and(may_be_consequence) {
            let all_end = async { while self.supervisors.join_next().await.is_some() {} };
            // Those who have not ended by then are ended next.
            let _ = time::timeout(LAST_WORDS, all_end).await;
        }
        self.stop().await;
    }
}

/// Applies an event of rank 0 to the board.
fn apply_event(event: Event, board: &Board) {
    match event {
        Event::Progress(progress) => {
            board.phase(Phase::Training);
            board.progress(progress);
        }
        Event::Timing(timing) => board.timing(timing),
        Event::Accuracy(accuracy) => board.accuracy(accuracy),
        Event::Best(accuracy) => board.best(accuracy),
        Event::Warning(sentence) => board.warning(sentence),
        // A validation is a part of the training.
        Event::Evaluating(EvaluationState { part: EvaluationPart::Validation, .. }) => {
            board.phase(Phase::Training);
        }
        Event::Evaluating(_) => board.phase(Phase::Evaluating),
        Event::Storage(_)
        | Event::Training(_)
        | Event::Stage(_)
        | Event::Pulse(_)
        | Event::Left
        | Event::Failed(_) => {}
    }
}

#[cfg(test)]
mod tests;
