//! How far a download is, and the last error of its source: written by its threads, read by the agent.

use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use datjob_api::report::{PreparationState, PreparationStep};
use datjob_data::DownloadObserver;

/// Maximum length of an error in characters: a heartbeat and a report must stay small.
const MAX_ERROR_CHARS: usize = 400;

/// The state of a download.
#[derive(Debug)]
pub(super) struct DownloadMonitor(Mutex<PreparationState>);

impl DownloadMonitor {
    /// The monitor of a download that begins.
    pub(super) fn new() -> Self {
        let step = PreparationStep::Downloading;
        Self(Mutex::new(PreparationState { step, done: 0, total: None, error: None }))
    }

    /// The state now.
    pub(super) fn state(&self) -> PreparationState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, PreparationState> {
        // Every change leaves a whole state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DownloadObserver for DownloadMonitor {
    fn progress(&self, step: PreparationStep, done: u64, total: Option<u64>) {
        let mut state = self.lock();
        if (state.step, state.done) != (step, done) {
            state.error = None;
        }
        (state.step, state.done, state.total) = (step, done, total);
    }

    fn retrying(&self, error: &dyn Display, retry_in: Duration) {
        self.lock().error = Some(sentence(error, retry_in));
    }
}

/// The error on one line, without characters that a terminal would interpret.
fn sentence(error: &dyn Display, retry_in: Duration) -> String {
    let error = error.to_string();
    let line = error.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_ERROR_CHARS).collect();
    format!("{line}; retrying in {} s", retry_in.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_lasts_until_the_next_progress() {
        let monitor = DownloadMonitor::new();
        let retry = Duration::from_secs(2);
        monitor.retrying(&"cannot read s3://a/b: connection\nrefused\u{1b}", retry);
        let expected = "cannot read s3://a/b: connection refused; retrying in 2 s";
        assert_eq!(monitor.state().error.unwrap(), expected);
        // The same number of bytes is no progress.
        monitor.progress(PreparationStep::Downloading, 0, Some(10));
        assert!(monitor.state().error.is_some());
        monitor.progress(PreparationStep::Downloading, 4, Some(10));
        let state = monitor.state();
        assert_eq!((state.error.as_ref(), state.percent()), (None, Some(40)));
        monitor.retrying(&"x".repeat(10_000), retry);
        assert!(monitor.state().error.unwrap().len() < 500);
        monitor.progress(PreparationStep::Unpacking, 4, Some(10));
        assert_eq!(monitor.state().error, None);
    }
}
