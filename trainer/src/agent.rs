//! The agent: process 1 of a trainer pod, and the parent of all workers.
//!
//! It joins the rendezvous, starts workers when a world is formed, ends them when it is broken, serves the report and
//! the metrics, and parks when the job has ended, since a StatefulSet would start an ended pod again. It parks too if another
//! pod has replaced its own.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use datjob_api::{
    Training, contract,
    report::{Failure, FailureReason, Phase},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task, time,
};

use crate::rendezvous::{
    State, Verdict,
    client::Client,
    host::{self, Host, HostError},
};
use datjob_data::{
    files,
    storage::{self, Wait},
};

mod assignment;
pub mod board;
pub mod config;
mod download_monitor;
mod failure_log;
mod hangs;
mod heartbeats;
pub mod http;
mod log_tail;
pub mod metrics;
mod oom_kills;
pub mod plan;
mod preparation;
mod preparation_log;
mod process;
pub(crate) mod progress_log;
mod restarts;
mod results;
mod retry;
#[cfg(test)]
mod testing;
pub mod volumes;
pub mod worker_process;
pub mod workers;

pub use board::Board;
pub use config::{Config, Files};

use plan::Action;
use restarts::RecentFailures;
use results::FoundResults;
use workers::Workers;

/// How often an agent sends a heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long workers have for a step and a checkpoint when they are asked to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_mins(1);

/// How an agent's work ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The job succeeded.
    Succeeded,
    /// The job cannot be done.
    Failed(Failure),
    /// The agent was asked to leave.
    Left {
        /// Whether a checkpoint was written for it.
        saved: bool,
    },
    /// More failures without progress than the limit that was set.
    TooManyFailures {
        /// Number of failures.
        count: u32,
        /// The limit.
        limit: u32,
        /// The last failure.
        last: Option<Failure>,
    },
    /// Another pod has replaced this one. The job continues without it.
    Superseded,
}

/// Does all that an agent does until the job has ended, or another pod has replaced this one. Everything it learns stands on
/// the board.
///
/// When `leave` becomes true, workers that train write a checkpoint first. Everything else ends at once: it keeps what it did.
pub async fn work(config: &Config, board: &Arc<Board>, leave: watch::Receiver<bool>) -> Ending {
    let mut left = leave.clone();
    let opened = tokio::select! {
        opened = open_client(config, board) => opened,
        () = asked(&mut left) => return Ending::Left { saved: false },
    };
    let client = match opened {
        Ok(client) => client,
        Err(failure) => {
            board.failed(failure.clone());
            return Ending::Failed(failure);
        }
    };
    let agent = Agent::new(config, board, client);
    tokio::select! {
        ending = agent.run(leave) => ending,
        // Dropping the other future kills the workers.
        () = agent.superseded.notified() => Ending::Superseded,
    }
}

/// Waits until the agent is asked to leave.
async fn asked(leave: &mut watch::Receiver<bool>) {
    if leave.wait_for(|leave| *leave).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}

fn incarnation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Connects to the rendezvous, or opens it in pod 0.
async fn open_client(config: &Config, board: &Arc<Board>) -> Result<Client, Failure> {
    if config.token.is_none() {
        tracing::warn!(
            "{} is not set, because an older operator started this attempt; heartbeats are not authenticated.",
            contract::ENV_TOKEN
        );
    }
    if config.pod_index != 0 {
        return Client::remote(&config.rendezvous_host, config.rendezvous_port, config.token.clone())
            .map_err(|error| Failure::new(FailureReason::Configuration, error.to_string()));
    }
    let (directory, owned) = (config.job_directory(), config.clone());
    let open = move || {
        storage::retry(|| files::create_directory(&directory)).map_err(HostError::from)?;
        Host::open(&host_options(&owned), &directory)
    };
    let opened = task::spawn_blocking(open).await.map_err(|error| crashed(&error))?;
    let host =
        Arc::new(opened.map_err(|error: HostError| Failure::new(FailureReason::Data, error.to_string()))?);
    board.host(Arc::clone(&host));
    Ok(Client::Local(host))
}

fn host_options(config: &Config) -> host::Options {
    host::Options {
        job_uid: config.job_uid.clone(),
        attempt: config.attempt,
        pods: config.replicas,
        bind: config.store_bind,
        store_port: config.store_port,
        // An invalid spec is reported later.
        training_hash: config.training().ok().map(|training| training.hash()),
        token: config.token.clone(),
        retries_pods: config.retries_pods,
    }
}

/// The failure of a thread for file operations that panicked.
fn crashed(error: &task::JoinError) -> Failure {
    Failure::new(FailureReason::Crash, format!("a file operation of the agent crashed: {error}"))
}

struct Agent<'a> {
    config: &'a Config,
    board: &'a Arc<Board>,
    client: Client,
    incarnation: u64,
    /// Sequence number of the last heartbeat.
    sequence: Cell<u64>,
    /// Why the last preparation failed, while the pod prepares again.
    preparation_failure: RefCell<Option<Failure>>,
    /// Notified when the rendezvous has rejected a heartbeat because another pod has replaced this one.
    superseded: Notify,
    /// Why the results could not be read at the last try.
    results_error: RefCell<Option<(String, Option<Wait>)>>,
}

impl<'a> Agent<'a> {
    fn new(config: &'a Config, board: &'a Arc<Board>, client: Client) -> Self {
        Self {
            config,
            board,
            client,
            incarnation: incarnation(),
            sequence: Cell::new(0),
            preparation_failure: RefCell::default(),
            superseded: Notify::new(),
            results_error: RefCell::default(),
        }
    }

    async fn run(&self, leave: watch::Receiver<bool>) -> Ending {
        if let Client::Local(host) = &self.client
            && let Some(failure) = host.failure()
        {
            // The job had failed before this agent started.
            return self.end(Verdict::Failed(failure));
        }
        match self.prepare_with_retries(&mut leave.clone()).await {
            Ok(training) => self.serve_worlds(training, leave).await,
            Err(ending) => ending,
        }
    }

    /// Reports the end of the job.
    fn end(&self, verdict: Verdict) -> Ending {
        self.board.verdict(&verdict);
        match verdict {
            Verdict::Succeeded => Ending::Succeeded,
            Verdict::Failed(failure) => Ending::Failed(failure),
        }
    }

    async fn serve_worlds(&self, training: Option<Training>, mut leave: watch::Receiver<bool>) -> Ending {
        let Some(training) = training else {
            // The results already existed; the other pods, which may have been replaced too, learn it from this pod.
            self.announce_success();
            return Ending::Succeeded;
        };
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut workers = Workers::new(events);
        let mut ticks = time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (begin, mut failures) = (Instant::now(), RecentFailures::default());
        let (mut last_error, mut leave_by) = (None, None);
        self.board.phase(Phase::Forming);
        loop {
            tokio::select! {
                Some(event) = inbox.recv() => {
                    if !workers.note(event, self.board).await { continue; }
                }
                _ = ticks.tick() => {}
                () = asked(&mut leave), if leave_by.is_none() => {
                    workers.ask_to_leave();
                    leave_by = Some(Instant::now() + LEAVE_TIMEOUT);
                }
            }
            if let Some(by) = leave_by
                && (!workers.can_leave() || Instant::now() > by)
            {
                workers.stop().await;
                return Ending::Left { saved: workers.have_left() };
            }
            workers.log_progress();
            workers.end_hung();
            if let State::Running(_) = workers.state() {
                failures.record_progress(begin.elapsed(), self.board.completed_epochs());
            }
            // At every tick: the volume may not have answered at the last one.
            if workers.have_ended() {
                self.find_results_unless_asked(&training, &workers, &mut leave).await;
            }
            let reply = self.send(&self.heartbeat_of(&workers), &mut last_error).await;
            match plan::plan(workers.state(), reply) {
                Action::Nothing => {}
                Action::Stop => workers.stop().await,
                Action::Start(world) => {
                    workers.stop().await;
                    match self.find_results_unless_asked(&training, &workers, &mut leave).await {
                        // The next tick tries again.
                        FoundResults::StorageFault | FoundResults::Complete => continue,
                        FoundResults::None => {}
                    }
                    // An epoch may have been completed since the last tick.
                    failures.record_progress(begin.elapsed(), self.board.completed_epochs());
                    let last = self.board.report().failure;
                    let counts = last.is_none_or(|failure| failure.reason != FailureReason::Storage);
                    let count = failures.record_world(begin.elapsed(), self.board.completed_epochs(), counts);
                    if let Some(limit) = self.config.max_restarts.filter(|limit| count > *limit) {
                        return Ending::TooManyFailures { count, limit, last: self.board.report().failure };
                    }
                    self.board.world(world.generation);
                    workers.start(self.config, &training, &world);
                }
                Action::End(verdict) => {
                    workers.stop().await;
                    return self.end(verdict);
                }
            }
        }
    }
}
