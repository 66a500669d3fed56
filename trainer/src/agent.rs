//! The agent: process 1 of a trainer pod, and the parent of all workers.
//!
//! It joins the rendezvous, starts workers when a world is formed, ends them when it is broken, serves the report and
//! the metrics, and parks when the job has ended, since a StatefulSet would start an ended pod again.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use datjob_api::{
    Training,
    report::{Failure, FailureReason, Phase},
};
use tokio::{sync::mpsc, task, time};

use crate::{
    checkpoint::{CheckpointError, results},
    rendezvous::{
        Heartbeat, Reply, State, Verdict,
        client::{Client, ClientError},
        host::{Host, HostError},
    },
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
pub mod http;
mod log_tail;
pub mod metrics;
mod oom_kills;
pub mod plan;
mod preparation;
mod preparation_log;
pub(crate) mod progress_log;
mod restarts;
pub mod volumes;
pub mod worker_process;
pub mod workers;

pub use board::Board;
pub use config::{Config, Files};

use plan::Action;
use restarts::RecentFailures;
use workers::Workers;

/// How often an agent and the rendezvous talk.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How an agent's work ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The job succeeded.
    Succeeded,
    /// The job cannot be done.
    Failed(Failure),
    /// More failures without progress than the limit that was set.
    TooManyFailures {
        /// Number of failures.
        count: u32,
        /// The limit.
        limit: u32,
        /// The last failure.
        last: Option<Failure>,
    },
}

/// Does all that an agent does until the job has ended. Everything it learns stands on the board.
pub async fn work(config: &Config, board: &Arc<Board>) -> Ending {
    let client = match open_client(config, board).await {
        Ok(client) => client,
        Err(failure) => {
            board.failed(failure.clone());
            return Ending::Failed(failure);
        }
    };
    let agent = Agent::new(config, board, client);
    match agent.prepare().await {
        Ok(training) => agent.serve_worlds(training).await,
        Err(failure) => {
            board.failed(failure.clone());
            // The failure ends the job on all pods, and pod 0 serves the report.
            agent.send_failure(&failure).await;
            Ending::Failed(failure)
        }
    }
}

fn incarnation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Connects to the rendezvous, or opens it in pod 0.
async fn open_client(config: &Config, board: &Arc<Board>) -> Result<Client, Failure> {
    if config.pod_index != 0 {
        return Client::remote(&config.rendezvous_host, config.rendezvous_port)
            .map_err(|error| Failure::new(FailureReason::Configuration, error.to_string()));
    }
    let (directory, owned) = (config.job_directory(), config.clone());
    let open = move || {
        storage::retry(|| files::create_directory(&directory)).map_err(HostError::from)?;
        let Config { job_uid, attempt, replicas, store_bind, store_port, .. } = owned;
        Host::open(&job_uid, attempt, replicas, store_bind, store_port, &directory)
    };
    let opened = task::spawn_blocking(open).await.map_err(|error| crashed(&error))?;
    let host =
        Arc::new(opened.map_err(|error: HostError| Failure::new(FailureReason::Data, error.to_string()))?);
    board.host(Arc::clone(&host));
    Ok(Client::Local(host))
}

/// The failure of a thread for file operations that panicked.
fn crashed(error: &task::JoinError) -> Failure {
    Failure::new(FailureReason::Crash, format!("a file operation of the agent crashed: {error}"))
}

/// What pod 0 found where the results will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FoundResults {
    /// The results of this job.
    Complete,
    /// No results, or invalid ones, which the workers replace.
    None,
    /// The volume cannot be read at the moment.
    StorageFault,
}

struct Agent<'a> {
    config: &'a Config,
    board: &'a Arc<Board>,
    client: Client,
    incarnation: u64,
    /// Why the results could not be read at the last try.
    results_error: RefCell<Option<(String, Option<Wait>)>>,
}

impl<'a> Agent<'a> {
    fn new(config: &'a Config, board: &'a Arc<Board>, client: Client) -> Self {
        Self { config, board, client, incarnation: incarnation(), results_error: RefCell::default() }
    }

    async fn serve_worlds(&self, training: Option<Training>) -> Ending {
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
        let mut last_error = None;
        self.board.phase(Phase::Forming);
        loop {
            tokio::select! {
                Some(event) = inbox.recv() => {
                    if !workers.note(event, self.board).await { continue; }
                }
                _ = ticks.tick() => {}
            }
            workers.log_progress();
            if let State::Running(_) = workers.state() {
                failures.record_progress(begin.elapsed(), self.board.completed_epochs());
            }
            // At every tick: the volume may not have answered at the last one.
            if workers.have_ended() {
                self.find_results(&training);
            }
            let reply = self.exchange(&workers, &mut last_error).await;
            match plan::plan(workers.state(), reply) {
                Action::Nothing => {}
                Action::Stop => workers.stop().await,
                Action::Start(world) => {
                    workers.stop().await;
                    match self.find_results(&training) {
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
                    self.board.verdict(&verdict);
                    return match verdict {
                        Verdict::Succeeded => Ending::Succeeded,
                        Verdict::Failed(failure) => Ending::Failed(failure),
                    };
                }
            }
        }
    }

    /// Reads the durable results: with them the job has succeeded, however its workers ended. Only pod 0 reads them.
    fn find_results(&self, training: &Training) -> FoundResults {
        if self.config.pod_index != 0 {
            return FoundResults::None;
        }
        match results::read(&self.config.job_directory(), &self.config.job_uid, &training.hash()) {
            Ok(Some(results)) => {
                self.results_error.take();
                progress_log::log_results(&results);
                self.board.succeeded(results);
                self.announce_success();
                FoundResults::Complete
            }
            Ok(None) => {
                self.results_error.take();
                FoundResults::None
            }
            Err(error) => self.record_unreadable_results(&error),
        }
    }

    /// Logs once for each reason that the results cannot be read, and reports a fault of storage.
    fn record_unreadable_results(&self, error: &CheckpointError) -> FoundResults {
        let mut last = self.results_error.borrow_mut();
        let (message, trouble) = (error.to_string(), storage::trouble(error));
        let found = if trouble.is_some() { FoundResults::StorageFault } else { FoundResults::None };
        if last.as_ref().is_none_or(|(known, _)| *known != message) {
            tracing::error!(error = message, "Cannot read the results; retrying.");
            *last = Some((message, trouble.map(Wait::begin)));
        }
        found
    }

    /// Only pod 0 has results, and it hosts the rendezvous.
    fn announce_success(&self) {
        if let Client::Local(host) = &self.client {
            host.succeed();
        }
    }

    async fn exchange(&self, workers: &Workers, last_error: &mut Option<String>) -> Option<Reply> {
        let heartbeat = self.heartbeat(workers.state(), workers.failure().cloned());
        let of_worker = workers.storage_trouble().cloned();
        let storage = of_worker.into_iter().chain(heartbeat.storage).min_by_key(|trouble| trouble.since);
        self.send(&Heartbeat { storage, ..heartbeat }, last_error).await
    }

    /// Sends a heartbeat; `last_error` is the error of the last one.
    async fn send(&self, heartbeat: &Heartbeat, last_error: &mut Option<String>) -> Option<Reply> {
        match self.client.exchange(heartbeat).await {
            Ok(reply) => {
                if last_error.take().is_some() {
                    tracing::info!("The rendezvous is reachable again.");
                }
                Some(reply)
            }
            Err(error) => {
                self.log_unanswered(last_error, &error);
                None
            }
        }
    }

    /// Logs an unanswered heartbeat once for each reason: twice a second would bury all else.
    fn log_unanswered(&self, last_error: &mut Option<String>, error: &ClientError) {
        let message = error.to_string();
        if last_error.as_ref() != Some(&message) {
            tracing::warn!(pod = self.config.pod_index, %error, "Heartbeat to the rendezvous failed; retrying.");
            *last_error = Some(message);
        }
    }

    fn heartbeat(&self, state: State, failure: Option<Failure>) -> Heartbeat {
        Heartbeat {
            pod: self.config.pod_index,
            incarnation: self.incarnation,
            attempt: self.config.attempt,
            job_uid: self.config.job_uid.clone(),
            state,
            preparation: None,
            storage: storage::oldest_trouble(),
            failure,
        }
    }

    /// Runs file operations on another thread, which may wait for the storage. Meanwhile heartbeats report the fault.
    async fn on_thread<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let mut thread = task::spawn_blocking(operation);
        let mut last_error = None;
        loop {
            tokio::select! {
                result = &mut thread => return result.map_err(|error| crashed(&error)),
                () = time::sleep(HEARTBEAT) => {
                    self.send(&self.heartbeat(State::Preparing, None), &mut last_error).await;
                }
            }
        }
    }

    /// Repeats a failure until the rendezvous has passed judgement.
    async fn send_failure(&self, failure: &Failure) {
        let heartbeat = self.heartbeat(State::Idle { ended: None }, Some(failure.clone()));
        let mut last_error = None;
        loop {
            match self.client.exchange(&heartbeat).await {
                Ok(Reply { verdict: Some(_), .. }) => return,
                Ok(_) => {}
                Err(error) => self.log_unanswered(&mut last_error, &error),
            }
            time::sleep(HEARTBEAT).await;
        }
    }
}
