//! Waits with a deadline.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;

/// Result of one check.
#[derive(Debug)]
pub enum Seen<T> {
    /// What was awaited.
    Done(T),
    /// What is there instead.
    Waiting(String),
}

/// Checks every `interval` until `check` is done. Fails after `timeout` with `what` and what was seen last.
pub async fn wait_until<T>(
    what: &str,
    timeout: Duration,
    interval: Duration,
    mut check: impl AsyncFnMut() -> anyhow::Result<Seen<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match check().await? {
            Seen::Done(value) => return Ok(value),
            Seen::Waiting(seen) if start.elapsed() >= timeout => {
                bail!("timed out after {} s waiting for {what}; seen: {seen}", timeout.as_secs());
            }
            Seen::Waiting(_) => sleep(interval).await,
        }
    }
}

/// A deadline that grows with the number of jobs.
pub fn deadline(base_seconds: u64, jobs: usize, seconds_per_job: f64) -> Duration {
    Duration::from_secs(base_seconds) + Duration::from_secs_f64(jobs as f64 * seconds_per_job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missed_deadline_names_what_was_awaited_and_seen() {
        let interval = Duration::from_millis(1);
        let result: anyhow::Result<()> =
            wait_until("3 pods", Duration::from_millis(5), interval, async || {
                Ok(Seen::Waiting("2 pods".into()))
            })
            .await;
        assert_eq!(result.unwrap_err().to_string(), "timed out after 0 s waiting for 3 pods; seen: 2 pods");
    }

    #[tokio::test]
    async fn checks_until_done() {
        let mut checks = 0;
        let result = wait_until("a third check", Duration::from_secs(5), Duration::ZERO, async || {
            checks += 1;
            Ok(if checks == 3 { Seen::Done(checks) } else { Seen::Waiting(checks.to_string()) })
        });
        assert_eq!(result.await.unwrap(), 3);
    }
}
