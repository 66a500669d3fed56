//! The heartbeats of an agent: what it sends to the rendezvous, and what it does without a reply.

use datjob_api::report::Failure;
use datjob_data::storage;
use tokio::{task, time};

use super::{Agent, HEARTBEAT, crashed, workers::Workers};
use crate::rendezvous::{Heartbeat, Refused, Reply, State, client::ClientError};

impl Agent<'_> {
    /// The heartbeat that says what the workers are doing.
    pub(super) fn heartbeat_of(&self, workers: &Workers) -> Heartbeat {
        let heartbeat = self.heartbeat(workers.state(), workers.failure().cloned());
        let of_worker = workers.storage_trouble().cloned();
        let storage = of_worker.into_iter().chain(heartbeat.storage).min_by_key(|trouble| trouble.since);
        Heartbeat { storage, trains: workers.can_leave(), wait: workers.wait(), ..heartbeat }
    }

    /// Sends a heartbeat; `last_error` is the error of the last one.
    pub(super) async fn send(&self, heartbeat: &Heartbeat, last_error: &mut Option<String>) -> Option<Reply> {
        let sequence = self.sequence.get().saturating_add(1);
        self.sequence.set(sequence);
        match self.client.exchange(&Heartbeat { sequence, ..heartbeat.clone() }).await {
            Ok(reply) => {
                if last_error.take().is_some() {
                    tracing::info!("The rendezvous is reachable again.");
                }
                Some(reply)
            }
            Err(ClientError::Refused(refused @ Refused::Superseded { .. })) => {
                tracing::warn!(pod = self.config.pod_index, "Stopping for good: {refused}.");
                self.superseded.notify_one();
                None
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

    pub(super) fn heartbeat(&self, state: State, failure: Option<Failure>) -> Heartbeat {
        // While it prepares again, the pod still cannot join.
        let last = || self.preparation_failure.borrow().clone().filter(|_| state == State::Preparing);
        Heartbeat {
            pod: self.config.pod_index,
            pod_uid: self.config.pod_uid.clone(),
            incarnation: self.incarnation,
            // Set when it is sent.
            sequence: 0,
            attempt: self.config.attempt,
            job_uid: self.config.job_uid.clone(),
            state,
            trains: false,
            preparation: None,
            storage: storage::oldest_trouble(),
            wait: None,
            failure: failure.or_else(last),
        }
    }

    /// Runs file operations on another thread, which may wait for the storage. Meanwhile it sends heartbeats.
    pub(super) async fn on_thread<T: Send + 'static>(
        &self,
        heartbeat: impl Fn() -> Heartbeat,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let mut thread = task::spawn_blocking(operation);
        let mut last_error = None;
        loop {
            tokio::select! {
                result = &mut thread => return result.map_err(|error| crashed(&error)),
                () = time::sleep(HEARTBEAT) => {
                    self.send(&heartbeat(), &mut last_error).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
