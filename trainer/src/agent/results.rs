//! How pod 0 learns that the job has succeeded: it finds the durable results.

use datjob_api::Training;
use datjob_data::storage::{self, Wait};
use tokio::sync::watch;

use super::{Agent, asked, progress_log, workers::Workers};
use crate::{
    checkpoint::{CheckpointError, results},
    rendezvous::{Heartbeat, client::Client},
};

/// What pod 0 found where the results will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundResults {
    /// The results of this job.
    Complete,
    /// No results, or invalid ones, which the workers replace.
    None,
    /// The volume cannot be read at the moment.
    StorageFault,
}

impl Agent<'_> {
    /// Like [`find_results`](Self::find_results), but returns when the agent is asked to leave: the volume may hang.
    pub(super) async fn find_results_unless_asked(
        &self,
        training: &Training,
        workers: &Workers,
        leave: &mut watch::Receiver<bool>,
    ) -> FoundResults {
        tokio::select! {
            found = self.find_results(training, workers) => found,
            () = asked(leave) => FoundResults::StorageFault,
        }
    }

    /// Reads the durable results: with them the job has succeeded, however its workers ended. Only pod 0 reads them.
    async fn find_results(&self, training: &Training, workers: &Workers) -> FoundResults {
        if self.config.pod_index != 0 {
            return FoundResults::None;
        }
        let (directory, uid, hash) =
            (self.config.job_directory(), self.config.job_uid.clone(), training.hash());
        let read = move || results::read(&directory, &uid, &hash);
        // With results, the failure of a worker does not count.
        let heartbeat = || Heartbeat { failure: None, ..self.heartbeat_of(workers) };
        let found = match self.on_thread(heartbeat, read).await {
            Ok(found) => found,
            Err(failure) => {
                tracing::error!(error = failure.message, "Cannot read the results; retrying.");
                return FoundResults::StorageFault;
            }
        };
        match found {
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
    pub(super) fn announce_success(&self) {
        if let Client::Local(host) = &self.client {
            host.succeed();
        }
    }
}
