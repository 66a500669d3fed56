//! Counts the failures of `dat-trainer run`; in a cluster the operator counts. Pure: times are durations since a fixed moment.
//!
//! The only pod of a run is never replaced, so every world after the first one follows a failure.

use std::time::Duration;

use datjob_api::restarts::is_progress;

/// Failures since the last progress.
#[derive(Debug, Default)]
pub(super) struct RecentFailures {
    count: u32,
    world: Option<World>,
}

/// The newest world.
#[derive(Clone, Copy, Debug)]
struct World {
    since: Duration,
    /// Highest number of epochs that were completed before.
    epochs: u32,
}

impl RecentFailures {
    /// Records a new world. Returns the number of failures since the last progress. `counts` is whether the end of the world
    /// before counts as a failure: a fault of storage does not.
    pub(super) fn record_world(&mut self, now: Duration, epochs: u32, counts: bool) -> u32 {
        let before = self.world.map_or(0, |world| world.epochs);
        if self.world.is_some() && counts {
            self.count = self.count.saturating_add(1);
        }
        self.world = Some(World { since: now, epochs: epochs.max(before) });
        self.count
    }

    /// Records the completed epochs of a world that is training.
    pub(super) fn record_progress(&mut self, now: Duration, epochs: u32) {
        if let Some(world) = self.world
            && is_progress(world.epochs, epochs, now.saturating_sub(world.since))
        {
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_count_anew_after_an_epoch() {
        let mut failures = RecentFailures::default();
        assert_eq!(failures.record_world(at(0), 0, true), 0);
        assert_eq!([1, 2].map(|second| failures.record_world(at(second), 0, true)), [1, 2]);
        failures.record_progress(at(3), 1);
        assert_eq!(failures.record_world(at(4), 1, true), 1);
        // A world that resumes from an earlier checkpoint completes an epoch for the second time.
        failures.record_progress(at(5), 0);
        failures.record_progress(at(6), 1);
        assert_eq!(failures.record_world(at(7), 0, true), 2);
        failures.record_progress(at(8), 1);
        assert_eq!(failures.record_world(at(9), 1, true), 3);
    }

    #[test]
    fn failures_count_anew_after_an_hour() {
        let mut failures = RecentFailures::default();
        failures.record_world(at(0), 0, true);
        assert_eq!(failures.record_world(at(10), 0, true), 1);
        failures.record_progress(at(3_609), 0);
        assert_eq!(failures.record_world(at(3_609), 0, true), 2);
        failures.record_progress(at(3_609 + 3_600), 0);
        assert_eq!(failures.record_world(at(7_210), 0, true), 1);
    }

    #[test]
    fn faults_of_storage_do_not_count() {
        let mut failures = RecentFailures::default();
        failures.record_world(at(0), 0, true);
        assert_eq!(failures.record_world(at(1), 0, true), 1);
        assert_eq!([2, 3, 4].map(|second| failures.record_world(at(second), 0, false)), [1; 3]);
        assert_eq!(failures.record_world(at(5), 0, true), 2);
    }
}
