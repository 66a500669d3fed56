//! Jitter that is a pure function of what it is for: jobs do not act in step, and a test can say when they act.

use std::time::Duration;

/// A time within `least` and `most`, always the same for the same `key`.
pub fn within(key: &str, least: Duration, most: Duration) -> Duration {
    let span = most.saturating_sub(least).as_millis().max(1);
    least + Duration::from_millis((u128::from(fnv1a(key.as_bytes())) % span) as u64)
}

/// FNV-1a, a hash that never changes between releases (unlike the standard library's).
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
        fn lies_within_its_bounds_and_is_repeatable(key in ".*", least in 0_u64..100, more in 0_u64..100) {
            let (least, most) = (Duration::from_secs(least), Duration::from_secs(least + more));
            let jitter = within(&key, least, most);
            prop_assert!(jitter >= least && (jitter < most || more == 0));
            prop_assert_eq!(jitter, within(&key, least, most));
        }
    }

    #[test]
    fn keys_spread() {
        let second = Duration::from_secs(1);
        let times: std::collections::HashSet<_> =
            (0..100).map(|n| within(&n.to_string(), second, 50 * second)).collect();
        assert!(times.len() > 90);
    }
}
