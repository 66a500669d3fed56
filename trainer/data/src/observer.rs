//! Receives the progress of a download.

use std::{fmt::Display, time::Duration};

use datjob_api::report::PreparationStep;

/// Receives the progress of a download. The calls come from any thread.
pub trait DownloadObserver: Send + Sync {
    /// `done` bytes of a step are done, of `total` if that is known.
    fn progress(&self, step: PreparationStep, done: u64, total: Option<u64>);

    /// The source has a transient error; the next attempt begins after `retry_in`.
    fn retrying(&self, error: &dyn Display, retry_in: Duration);
}

/// Ignores the progress.
impl DownloadObserver for () {
    fn progress(&self, _: PreparationStep, _: u64, _: Option<u64>) {}

    fn retrying(&self, _: &dyn Display, _: Duration) {}
}
