//! Pulses: signs that this process makes progress. Whoever watches it takes a long time without a pulse for a hang.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count for the process: pulses come from every depth of a computation, and from all its threads.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Records progress, such as a forward pass or a file operation that has returned.
pub fn beat() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// The number of pulses since this process started.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}
