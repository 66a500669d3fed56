//! What the host records on the volume before any pod receives it: generations and the final failure. Runs on separate threads,
//! outside the quorum's lock.

use datjob_api::report::{Failure, FailureReason, StorageTrouble};
use datjob_data::storage::{self, Wait};

use super::Host;
use crate::rendezvous::{
    generation_file::RecordGeneration,
    verdict_file::{RecordFailure, Recorded, VerdictError},
};

/// The job's files on the checkpoint volume.
#[derive(Debug)]
pub(super) struct Volume {
    /// The generation.
    pub(super) generation: Box<dyn RecordGeneration>,
    /// The final failure.
    pub(super) verdict: Box<dyn RecordFailure>,
}

impl Host {
    /// Makes a proposed generation durable before any pod receives it, and then forms its world.
    pub(super) fn record_generation(&self, generation: u32) {
        let recorded = self.volume.generation.record(generation);
        let (mut quorum, now) = self.lock();
        match recorded.map_err(|error| (storage::trouble(&error), error)) {
            Ok(()) => {
                *self.generation_wait() = None;
                let formed = quorum.commit(now);
                drop(quorum);
                if let Some(generation) = formed {
                    self.preparations().clear();
                    tracing::info!(generation, "World formed.");
                }
            }
            Err((Some(trouble), _)) => {
                quorum.postpone(now);
                let message = trouble.message.clone();
                // After the job's end no heartbeat would clear the fault.
                let is_new = quorum.verdict().is_none() && self.report_trouble(trouble);
                drop(quorum);
                if is_new {
                    tracing::warn!("Storage fault: {message}; retrying every second.");
                }
            }
            Err((None, error)) => {
                *self.generation_wait() = None;
                quorum.abandon(now, &Failure::new(FailureReason::Data, error.to_string()));
            }
        }
    }

    /// Reports a fault of the volume until the generation is recorded; returns whether it is the first one.
    fn report_trouble(&self, trouble: StorageTrouble) -> bool {
        let mut wait = self.generation_wait();
        if let Some(wait) = &*wait {
            wait.update(trouble);
            return false;
        }
        *wait = Some(Wait::begin(trouble));
        true
    }

    /// Makes a final failure durable before any pod receives it, and then ends the job with it. Waits as long as the volume has a
    /// fault.
    pub(super) fn record_failure(&self, failure: Failure) {
        let recorded = storage::retry(|| -> Result<Option<Recorded>, VerdictError> {
            // The results may have been found meanwhile.
            if self.lock().0.verdict().is_some() {
                return Ok(None);
            }
            self.volume.verdict.record(&failure).map(Some)
        });
        let (mut quorum, now) = self.lock();
        match recorded {
            Ok(Some(Recorded::Failure(first))) => quorum.confirm_failure(first),
            // Pod 0 finds them when its workers have ended.
            Ok(Some(Recorded::ResultsExist)) => quorum.postpone_failure(now),
            Ok(None) => {}
            Err(error) => {
                quorum.confirm_failure(failure);
                drop(quorum);
                tracing::error!(%error, "Cannot record the failure of the job; a restart of pod 0 would forget it.");
            }
        }
    }
}
