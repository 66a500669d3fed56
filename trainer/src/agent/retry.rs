//! Repeats the preparation of a pod that failed, unless the failure ends the job.
//!
//! Once the job has trained, missing files and another image are failures of the pod: it waits and prepares again, and the report
//! of pod 0 names it.

use datjob_api::{Training, report::Failure};
use tokio::{sync::watch, time};

use super::{Agent, Ending, HEARTBEAT, asked};
use crate::rendezvous::{Reply, State, Verdict, quorum::POD_RETRY_AFTER};

impl Agent<'_> {
    /// Prepares the data, again after each failure that does not end the job. `Ok(None)` if the job has already succeeded.
    pub(super) async fn prepare_with_retries(
        &self,
        leave: &mut watch::Receiver<bool>,
    ) -> Result<Option<Training>, Ending> {
        loop {
            let prepared = tokio::select! {
                prepared = self.prepare() => prepared,
                () = asked(leave) => return Err(Ending::Left { saved: false }),
            };
            let failure = match prepared {
                Ok(training) => {
                    self.preparation_failure.take();
                    return Ok(training);
                }
                Err(failure) => failure,
            };
            let verdict = tokio::select! {
                // The failure ends the job on all pods, once it is durable.
                verdict = self.send_failure(&failure) => verdict,
                () = asked(leave) => return Err(Ending::Left { saved: false }),
            };
            if let Some(verdict) = verdict {
                return Err(self.end(verdict));
            }
            let (pod, error) = (self.config.pod_index, &failure.message);
            tracing::warn!(pod, error, "Cannot join the job; preparing again.");
            *self.preparation_failure.borrow_mut() = Some(failure);
        }
    }

    /// Repeats a failure until the rendezvous replies with the end of the job, or it is time to retry. Returns the end.
    async fn send_failure(&self, failure: &Failure) -> Option<Verdict> {
        let heartbeat = self.heartbeat(State::Preparing, Some(failure.clone()));
        let mut last_error = None;
        let begin = time::Instant::now();
        while !self.config.retries_pods || begin.elapsed() < POD_RETRY_AFTER {
            if let Some(Reply { verdict: Some(verdict), .. }) = self.send(&heartbeat, &mut last_error).await {
                return Some(verdict);
            }
            time::sleep(HEARTBEAT).await;
        }
        None
    }
}

#[cfg(test)]
mod tests;
