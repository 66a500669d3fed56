//! Which failures `lifecycle.maxRestarts` counts: the rule of the operator and of `dat-trainer run`. Pure.

use std::time::Duration;

/// Training for this long is progress, even within an epoch.
const PROGRESS_TIME: Duration = Duration::from_hours(1);

/// Whether a world has made progress, so that the count of failures starts anew: it completed more epochs than were ever
/// completed before it formed, or it has trained for an hour.
pub fn is_progress(epochs_before: u32, epochs: u32, trained: Duration) -> bool {
    epochs > epochs_before || trained >= PROGRESS_TIME
}

/// Why a job fails after this many failures without progress, or `None` if it may restart. `last` is the last failure, without
/// a full stop.
pub fn limit_exceeded(failures: u32, limit: u32, last: &str) -> Option<String> {
    let what = match failures {
        1 => "1 failure without progress exceeds",
        _ => &format!("{failures} failures without progress exceed"),
    };
    (failures > limit).then(|| format!("{what} lifecycle.maxRestarts ({limit}). Last failure: {last}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_or_an_hour_is_progress() {
        let seconds = Duration::from_secs;
        assert!(is_progress(3, 4, seconds(0)) && is_progress(3, 2, seconds(3_600)));
        assert!(!is_progress(3, 3, seconds(3_599)), "the epoch had been completed before");
    }

    #[test]
    fn the_limit_is_the_number_of_restarts() {
        assert_eq!(limit_exceeded(2, 2, "x"), None);
        let expected = "1 failure without progress exceeds lifecycle.maxRestarts (0). Last failure: x.";
        assert_eq!(limit_exceeded(1, 0, "x").unwrap(), expected);
        let expected = "3 failures without progress exceed lifecycle.maxRestarts (2). Last failure: x.";
        assert_eq!(limit_exceeded(3, 2, "x").unwrap(), expected);
    }
}
