//! Compares times. Pure.
//!
//! A job has times of two kinds of clocks, which may differ:
//!
//! - The **operator's clock** wrote the times in the status: `startTime`, `waitingSince`, `completionTime`, `world.since`. Every
//!   deadline that ends or restarts something compares only these with the operator's present time ([`elapsed`]). After a
//!   change of the leader they are from the clock of another machine: a deadline is then early or late by the difference of
//!   the two clocks, and never later, because a time in the future is replaced ([`not_after`]).
//! - **Clocks of the cluster** (API server, scheduler, kubelets) wrote the times of pods and events. They only decide what a
//!   condition says ([`has_lasted`]).
//!
//! Leases and ages of reports are measured with a monotonic clock ([`std::time::Instant`]).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The time since `since`, in whole seconds; zero if it is in the future. For times of the operator's clock.
pub fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    let seconds = now.as_second().saturating_sub(since.as_second());
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// Replaces a time in the future by the present. Otherwise a clock that was once wrong would delay a deadline without limit.
/// For times of the operator's clock.
pub fn not_after(time: &mut Option<Time>, now: Timestamp) {
    if let Some(time) = time
        && time.0 > now
    {
        time.0 = now;
    }
}

/// Whether a state has lasted for `grace` since a time of the cluster's clock. If the clocks differ by more, the grace cannot
/// be measured: a time that is further in the future counts as long ago. The result is late by at most twice the grace.
pub fn has_lasted(since: Timestamp, now: Timestamp, grace: Duration) -> bool {
    now.as_second().abs_diff(since.as_second()) >= grace.as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_time_in_the_future_has_not_elapsed() {
        assert_eq!(elapsed(at(100), at(130)), Duration::from_secs(30));
        assert_eq!(elapsed(at(130), at(100)), Duration::ZERO);
    }

    #[test]
    fn a_time_in_the_future_is_replaced() {
        for (time, expected) in [(90, 90), (100, 100), (4_000_000_000, 100)] {
            let mut time = Some(Time(at(time)));
            not_after(&mut time, at(100));
            assert_eq!(time, Some(Time(at(expected))));
        }
        let mut none = None;
        not_after(&mut none, at(100));
        assert_eq!(none, None);
    }

    proptest! {
        /// A state that began at 0, seen by a clock that differs by `skew`.
        #[test]
        fn a_wrong_clock_hides_a_state_for_twice_the_grace_at_most(skew in -10_000_i64..10_000, grace in 1_u64..100) {
            let visible = |second: i64| has_lasted(at(skew), at(second), Duration::from_secs(grace));
            let hidden = (0..30_000).filter(|&second| !visible(second)).count() as u64;
            prop_assert!(hidden <= 2 * grace, "{hidden}");
        }

        #[test]
        fn equal_clocks_hide_a_state_for_the_grace(grace in 1_u64..100) {
            let visible = |second: u64| has_lasted(at(0), at(second as i64), Duration::from_secs(grace));
            prop_assert!(!visible(grace - 1) && visible(grace) && visible(grace + 1));
        }
    }
}
