//! How long a silent pod counts as present. A stall of the host itself costs no pod its lease. Pure.

use std::time::Duration;

/// Time since some fixed moment; nothing here reads a clock.
pub type Instant = Duration;

/// A pod without a heartbeat for so long is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
/// A host that did nothing for so long was stalled: its own agent alone sends two heartbeats a second.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The leases of all pods.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leases {
    last_tick: Option<Instant>,
    /// The end of the last stall.
    renewed: Instant,
}

impl Leases {
    /// Records that the host runs. After a stall, renews all leases, because the host could not receive heartbeats, and
    /// returns the length of the stall.
    pub fn tick(&mut self, now: Instant) -> Option<Duration> {
        let stall = now.saturating_sub(self.last_tick.replace(now)?);
        if stall <= STALLED_AFTER {
            return None;
        }
        self.renewed = now;
        Some(stall)
    }

    /// Whether a pod with this last heartbeat counts as present.
    pub fn holds(&self, last_heartbeat: Instant, now: Instant) -> bool {
        is_recent(last_heartbeat.max(self.renewed), now)
    }
}

/// Whether a moment is at most the length of a lease ago.
pub fn is_recent(moment: Instant, now: Instant) -> bool {
    now.saturating_sub(moment) <= LOST_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_ends_ten_seconds_after_the_last_heartbeat() {
        let mut leases = Leases::default();
        for second in 0..20 {
            assert_eq!(leases.tick(at(second)), None);
            assert_eq!(leases.holds(at(3), at(second)), second <= 13);
        }
    }

    #[test]
    fn all_leases_start_anew_after_a_stall() {
        let mut leases = Leases::default();
        assert_eq!([0, 5, 65].map(|second| leases.tick(at(second))), [None, None, Some(at(60))]);
        assert!(leases.holds(at(0), at(75)) && !leases.holds(at(0), at(76)));
        assert!(leases.holds(at(70), at(80)));
        // Only the end of a stall renews them.
        assert_eq!([66, 70, 74].map(|second| leases.tick(at(second))), [None; 3]);
        assert!(!leases.holds(at(0), at(76)));
    }
}
