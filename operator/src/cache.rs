//! Cache of what the operator knows about each job between two reconciliations.
//!
//! It only saves reads: an operator with an empty cache makes the same decisions.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use datjob_api::datjob::{DatJob, DatJobStatus};
use kube::ResourceExt as _;

use crate::controller::blockers::WarningEvent;

/// Cached state of one job.
#[derive(Clone, Debug, Default)]
pub struct CachedJob {
    /// The status that the operator wrote last.
    pub written: Option<WrittenStatus>,
    /// When the status was last written.
    pub written_at: Option<Instant>,
    /// Number of consecutive failed reconciliations.
    pub errors: u32,
    /// Since when pods are missing.
    pub pods_missing_since: Option<Instant>,
    /// The warning event that was found last.
    pub warning: Option<ListedWarning>,
    /// Whether the operator has left the job to another installation.
    pub left: bool,
}

/// A warning event that explains why pods are missing or do not start.
#[derive(Clone, Debug)]
pub struct ListedWarning {
    /// UID of the object whose events were listed.
    pub object: String,
    /// When they were listed.
    pub at: Instant,
    /// The event, if there was one.
    pub warning: Option<WarningEvent>,
}

/// A status that was written.
#[derive(Clone, Debug)]
pub struct WrittenStatus {
    /// The resource version of the job that it replaced.
    pub replaced: String,
    /// The resource version of the job with this status.
    pub version: String,
    /// The status.
    pub status: Box<DatJobStatus>,
}

/// Cached state of all jobs, by UID.
#[derive(Debug, Default)]
pub struct JobCache(Mutex<HashMap<String, CachedJob>>);

impl JobCache {
    /// Returns the cached state of a job, or an empty one.
    pub fn get(&self, uid: &str) -> CachedJob {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// The job with the status that the operator wrote last, if `watched` is the version before. The watch may be late; with
    /// the old version, the next write would be a conflict.
    pub fn newer(&self, watched: &DatJob) -> Option<DatJob> {
        let mut jobs = self.lock();
        let cached = jobs.get_mut(watched.metadata.uid.as_deref()?)?;
        match &cached.written {
            Some(written) if watched.resource_version().as_ref() == Some(&written.replaced) => {
                let mut newer = watched.clone();
                newer.metadata.resource_version = Some(written.version.clone());
                newer.status = Some((*written.status).clone());
                Some(newer)
            }
            _ => {
                cached.written = None;
                None
            }
        }
    }

    /// The watch has delivered a version of a job. Drops the written status if it is this version.
    pub fn deliver(&self, uid: &str, version: Option<&str>) {
        if let Some(cached) = self.lock().get_mut(uid)
            && cached.written.as_ref().is_some_and(|written| Some(written.version.as_str()) == version)
        {
            cached.written = None;
        }
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
    fn a_written_status_replaces_that_of_the_version_before() {
        let cache = JobCache::default();
        let mut watched = crate::testing::minimal();
        watched.metadata.uid = Some("a".into());
        watched.metadata.resource_version = Some("1".into());
        assert!(cache.newer(&watched).is_none());
        let status = Box::new(DatJobStatus { attempt: 3, ..DatJobStatus::default() });
        let written = WrittenStatus { replaced: "1".into(), version: "2".into(), status };
        cache.update("a", |job| job.written = Some(written));
        for _ in 0..2 {
            let newer = cache.newer(&watched).unwrap();
            assert_eq!((newer.resource_version(), newer.status.unwrap().attempt), (Some("2".into()), 3));
        }
        // The watch has delivered this version or a later one.
        watched.metadata.resource_version = Some("2".into());
        assert!(cache.newer(&watched).is_none());
        watched.metadata.resource_version = Some("1".into());
        assert!(cache.newer(&watched).is_none(), "it is dropped");
    }

    #[test]
    fn a_written_status_is_dropped_when_the_watch_delivers_it() {
        let cache = JobCache::default();
        let written = WrittenStatus { replaced: "1".into(), version: "2".into(), status: Box::default() };
        cache.update("a", |job| job.written = Some(written));
        cache.deliver("a", Some("1"));
        cache.deliver("b", Some("2"));
        assert!(cache.get("a").written.is_some());
        cache.deliver("a", Some("2"));
        assert!(cache.get("a").written.is_none());
    }

    #[test]
    fn retain_drops_other_jobs() {
        let cache = JobCache::default();
        cache.update("a", |job| job.errors += 1);
        cache.update("b", |job| job.errors += 2);
        cache.retain(&HashSet::from(["b".to_owned()]));
        assert_eq!((cache.get("a").errors, cache.get("b").errors), (0, 2));
    }
}
