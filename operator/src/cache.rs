//! Cache of what the operator knows about each job between two reconciliations.
//!
//! It only saves reads: an operator with an empty cache makes the same decisions.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Cached state of one job.
#[derive(Clone, Copy, Debug, Default)]
pub struct CachedJob {
    /// When the status was last written.
    pub progress_written_at: Option<Instant>,
    /// Number of consecutive failed reconciliations.
    pub errors: u32,
    /// Whether the operator has left the job to another installation.
    pub left: bool,
}

/// Cached state of all jobs, by UID.
#[derive(Debug, Default)]
pub struct JobCache(Mutex<HashMap<String, CachedJob>>);

impl JobCache {
    /// Returns the cached state of a job, or an empty one.
    pub fn get(&self, uid: &str) -> CachedJob {
        self.lock().get(uid).copied().unwrap_or_default()
    }

    /// Changes the cached state of a job.
    pub fn update(&self, uid: &str, change: impl FnOnce(&mut CachedJob)) {
        change(self.lock().entry(uid.to_owned()).or_default());
    }

    /// Drops a deleted job.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Drops all jobs except these.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CachedJob>> {
        // A panic leaves no entry half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retain_drops_other_jobs() {
        let cache = JobCache::default();
        cache.update("a", |job| job.errors += 1);
        cache.update("b", |job| job.errors += 2);
        cache.retain(&HashSet::from(["b".to_owned()]));
        assert_eq!((cache.get("a").errors, cache.get("b").errors), (0, 2));
    }
}
