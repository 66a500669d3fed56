//! The retry policy of downloads. Pure.

use std::time::Duration;

use backon::ExponentialBuilder;

/// How often a failed download is retried, and its timeouts.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Maximum number of attempts, the first one included.
    pub max_attempts: u32,
    /// The delay before the second attempt. Every further delay is twice as long.
    pub initial_delay: Duration,
    /// Timeout for connecting to the server and for every read.
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    /// Five attempts within half a minute, with a timeout of a minute.
    fn default() -> Self {
        Self { max_attempts: 5, initial_delay: Duration::from_secs(2), timeout: Duration::from_mins(1) }
    }
}

impl RetryPolicy {
    /// The delays between the attempts: exponential, without jitter and without a maximum.
    pub(crate) fn backoff(&self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.initial_delay)
            .with_factor(2.0)
            .without_max_delay()
            .with_max_times(self.max_attempts.saturating_sub(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use backon::BackoffBuilder;

    use super::*;

    #[test]
    fn delays_double_until_the_attempts_are_used_up() {
        let seconds: Vec<u64> =
            RetryPolicy::default().backoff().build().map(|delay| delay.as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16]);
        let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        assert_eq!(once.backoff().build().count(), 0);
    }
}
