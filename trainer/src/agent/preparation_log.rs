//! The preparation of data in the log: a line a minute. The decision is pure: times are durations since its begin.

use std::time::Duration;

use datjob_api::report::{PreparationState, PreparationStep};

use super::progress_log::{INTERVAL, eta, remaining};

/// Decides which lines are due.
#[derive(Debug, Default)]
pub(super) struct PreparationLog {
    last_line: Duration,
    /// The running step, when it began, and the bytes that were done then.
    step: Option<(PreparationStep, Duration, u64)>,
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
        // A download that begins again has fewer bytes than before.
        let same_step = |(step, _, first): &(_, _, u64)| *step == state.step && *first <= state.done;
        let (step, began, first) = self.step.filter(same_step).unwrap_or((state.step, now, state.done));
        self.step = Some((step, began, first));
        if now.saturating_sub(self.last_line) < INTERVAL {
            return None;
        }
        self.last_line = now;
        let left = |total: u64| {
            remaining(
                state.done.saturating_sub(first),
                total.saturating_sub(first),
                now.saturating_sub(began),
            )
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
            lines.extend(log.due(at(second), state(PreparationStep::Downloading, 400 + 2 * second)));
        }
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].state.done, lines[0].remaining), (520, Some(at(240))));
        assert_eq!((lines[1].state.done, lines[1].remaining), (640, Some(at(180))));
        // The next step has its own speed.
        assert_eq!(log.due(at(170), state(PreparationStep::Unpacking, 0)), None);
        let line = log.due(at(180), state(PreparationStep::Unpacking, 100)).unwrap();
        assert_eq!(line.remaining, Some(at(90)));
    }
}
