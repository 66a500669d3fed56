//! Deterministic jitter: a function of a key, so that jobs do not act at the same time. Pure.

use std::time::Duration;

/// A duration from `min` to `max` that depends only on `key`.
pub fn jittered(key: &str, min: Duration, max: Duration) -> Duration {
    let span = max.saturating_sub(min).as_millis().max(1);
    min + Duration::from_millis((u128::from(fnv1a(key.as_bytes())) % span) as u64)
}

/// FNV-1a. Unlike the hash of the standard library, it is the same in all releases.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_within_bounds_and_deterministic(key in ".*", min in 0_u64..100, more in 0_u64..100) {
            let (min, max) = (Duration::from_secs(min), Duration::from_secs(min + more));
            let jitter = jittered(&key, min, max);
            prop_assert!(jitter >= min && (jitter < max || more == 0));
            prop_assert_eq!(jitter, jittered(&key, min, max));
        }
    }

    #[test]
    fn keys_give_different_durations() {
        let second = Duration::from_secs(1);
        let times: std::collections::HashSet<_> =
            (0..100).map(|n| jittered(&n.to_string(), second, 50 * second)).collect();
        assert!(times.len() > 90);
    }
}
