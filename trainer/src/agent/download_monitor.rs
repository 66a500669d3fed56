//! How far a download is, and the last error of its source: written by its threads, read by the agent.

use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use datjob_api::report::{PreparationState, PreparationStep};
use datjob_data::DownloadObserver;

/// Maximum length of an error in characters: a heartbeat and a report must stay small.
const MAX_ERROR_CHARS: usize = 400;

/// How long after the last error a download must progress without another one before the error has passed. Of many concurrent
/// requests some may fail, again and again.
const ERROR_LASTS: Duration = Duration::from_secs(10);

/// The state of a download.
#[derive(Debug)]
pub(super) struct DownloadMonitor(Mutex<Monitored>);

#[derive(Debug)]
struct Monitored {
    state: PreparationState,
    last_error: Option<Instant>,
}

impl DownloadMonitor {
    /// The monitor of a download that begins.
    pub(super) fn new() -> Self {
        let step = PreparationStep::Downloading;
        let state = PreparationState { step, done: 0, total: None, error: None };
        Self(Mutex::new(Monitored { state, last_error: None }))
    }

    /// The state now.
    pub(super) fn state(&self) -> PreparationState {
        self.lock().state.clone()
    }

    fn record_progress(&self, now: Instant, step: PreparationStep, done: u64, total: Option<u64>) {
        let mut monitored = self.lock();
        let Monitored { state, last_error } = &mut *monitored;
        let has_progressed = (state.step, state.done, state.total) != (step, done, total);
        if has_progressed && last_error.is_none_or(|last| now.duration_since(last) >= ERROR_LASTS) {
            state.error = None;
        }
        (state.step, state.done, state.total) = (step, done, total);
    }

    /// Keeps the first error: concurrent requests have different ones, and each change would be a write to the API server.
    fn record_error(&self, now: Instant, error: &dyn Display) {
        let mut monitored = self.lock();
        monitored.last_error = Some(now);
        monitored.state.error.get_or_insert_with(|| sentence(error));
    }

    fn lock(&self) -> MutexGuard<'_, Monitored> {
        // Every change leaves a whole state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DownloadObserver for DownloadMonitor {
    fn progress(&self, step: PreparationStep, done: u64, total: Option<u64>) {
        self.record_progress(Instant::now(), step, done, total);
    }

    fn retrying(&self, error: &dyn Display, _: Duration) {
        self.record_error(Instant::now(), error);
    }
}

/// The error on one line, without characters that a terminal would interpret.
fn sentence(error: &dyn Display) -> String {
    let error = error.to_string();
    let line = error.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_lasts_until_progress_without_another_one() {
        let (monitor, begin) = (DownloadMonitor::new(), Instant::now());
        let at = |second| begin + Duration::from_secs(second);
        let progress = |second, done| {
            monitor.record_progress(at(second), PreparationStep::Downloading, done, Some(10));
            monitor.state().error
        };
        monitor.record_error(at(0), &"cannot read s3://a/b: connection\nrefused\u{1b}");
        let expected = Some("cannot read s3://a/b: connection refused".to_owned());
        assert_eq!(progress(1, 1), expected);
        monitor.record_error(at(9), &"cannot read s3://a/c: slow down");
        assert_eq!(progress(11, 2), expected, "another request has failed");
        assert_eq!(progress(30, 2), expected, "no byte has arrived");
        assert_eq!(progress(31, 3), None);
        monitor.record_error(at(40), &"x".repeat(10_000));
        assert!(monitor.state().error.unwrap().len() < 500);
    }
}
