//! What the operator remembers of a job between two reconciliations. Nothing here decides what becomes of a job: an
//! operator that starts with an empty cache does the same, with a few more reads.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The pod that answers for the job, as the API server had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportingPod {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// UID of the StatefulSet that owns it.
    pub set_uid: String,
    /// Its address.
    pub address: IpAddr,
    /// When the API server said so.
    pub observed_at: Instant,
}

/// What is remembered of one job.
#[derive(Clone, Debug, Default)]
pub struct CachedJob {
    /// When progress was last written into the status.
    pub progress_written_at: Option<Instant>,
    /// When the children other than the StatefulSet were last seen to be as they should, and a hash of what that is.
    pub children_checked: Option<(u64, Instant)>,
    /// The pod that answered last.
    pub reporting_pod: Option<ReportingPod>,
    /// Reports in a row that could not be read although their pod is ready.
    pub failed_report_reads: u32,
    /// Reconciliations in a row that failed.
    pub errors: u32,
}

/// What is remembered of all jobs, by UID.
#[derive(Debug, Default)]
pub struct JobCache(Mutex<HashMap<String, CachedJob>>);

impl JobCache {
    /// What is remembered of a job.
    pub fn get(&self, uid: &str) -> CachedJob {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of a job.
    pub fn update(&self, uid: &str, change: impl FnOnce(&mut CachedJob)) {
        change(self.lock().entry(uid.to_owned()).or_default());
    }

    /// Forgets jobs that are no longer there.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CachedJob>> {
        // Nothing here is left half-changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_are_gone_are_forgotten() {
        let cache = JobCache::default();
        cache.update("a", |job| job.errors += 1);
        cache.update("b", |job| job.errors += 2);
        cache.retain(&HashSet::from(["b".to_owned()]));
        assert_eq!((cache.get("a").errors, cache.get("b").errors), (0, 2));
    }
}
