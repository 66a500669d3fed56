//! The preparation of data in the log: a line a minute. The decision is pure: times are durations since its begin.

use std::time::Duration;

use datjob_api::report::{PreparationState, PreparationStep};

use super::progress_log::{INTERVAL, eta, remaining};

/// Decides which lines are due.
#[derive(Debug, Default)]
pub(super) struct PreparationLog {
    last_line: Duration,
    /// The last state: a download that begins again has fewer bytes than before.
    last: Option<(PreparationStep, u64)>,
    /// When the last line of this step was due, and the bytes that were done then. The speed before includes bytes that were
    /// on disk already.
    last_of_step: Option<(Duration, u64)>,
}

/// A line of the log.
#[derive(Debug, PartialEq)]
pub(super) struct PreparationLine {
    state: PreparationState,
    remaining: Option<Duration>,
}

impl PreparationLog {
    /// The line that is due because the last one is a minute old.
    pub(super) fn due(&mut self, now: Duration, state: PreparationState) -> Option<PreparationLine> {
        if self.last.is_none_or(|(step, done)| step != state.step || state.done < done) {
            self.last_of_step = None;
        }
        self.last = Some((state.step, state.done));
        if now.saturating_sub(self.last_line) < INTERVAL {
            return None;
        }
        self.last_line = now;
        let since = self.last_of_step.replace((now, state.done));
        let left = |total: u64| {
            let (at, done) = since?;
            remaining(state.done.saturating_sub(done), total.saturating_sub(done), now.saturating_sub(at))
        };
        let remaining = state.total.and_then(left);
        Some(PreparationLine { state, remaining })
    }
}

impl PreparationLine {
    /// Writes the line to the log.
    pub(super) fn write(&self) {
        let PreparationState { step, done, total, .. } = self.state;
        let eta = eta(self.remaining);
        tracing::info!(?step, done, total, percent = self.state.percent(), eta, "Preparing the data.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_every_minute_with_the_time_left() {
        let at = Duration::from_secs;
        let state = |step, done| PreparationState { step, done, total: Some(1_000), error: None };
        let mut log = PreparationLog::default();
        let mut lines = Vec::new();
        // Resumes a download of which 400 bytes were on disk.
        for second in 0..=130 {
            let done = if second == 0 { 0 } else { 400 + 2 * second };
            lines.extend(log.due(at(second), state(PreparationStep::Downloading, done)));
        }
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].state.done, lines[0].remaining), (520, None));
        assert_eq!((lines[1].state.done, lines[1].remaining), (640, Some(at(180))));
        // It is interrupted and begins again.
        let mut due = |second, step, done| log.due(at(second), state(step, done)).map(|line| line.remaining);
        assert_eq!(due(170, PreparationStep::Downloading, 0), None);
        assert_eq!(due(180, PreparationStep::Downloading, 100), Some(None));
        assert_eq!(due(240, PreparationStep::Downloading, 400), Some(Some(at(120))));
        // The next step has another speed.
        assert_eq!(due(300, PreparationStep::Unpacking, 100), Some(None));
        assert_eq!(due(360, PreparationStep::Unpacking, 200), Some(Some(at(480))));
    }
}
