//! What the operator remembers of a job between two reconciliations. Nothing here decides what becomes of a job: an
//! operator that starts with an empty memory does the same, with a few more reads.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The pod that answers for the job, as the API server had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answering {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// UID of the StatefulSet that owns it.
    pub set_uid: String,
    /// Its address.
    pub address: IpAddr,
    /// When the API server said so.
    pub seen: Instant,
}

/// What is remembered of one job.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// When progress was last written into the status.
    pub progress_written: Option<Instant>,
    /// When the children other than the StatefulSet were last seen to be as they should, and a hash of what that is.
    pub children_checked: Option<(u64, Instant)>,
    /// The pod that answered last.
    pub answering: Option<Answering>,
    /// Reports in a row that could not be read although their pod is ready.
    pub unread_reports: u32,
    /// Reconciliations in a row that failed.
    pub errors: u32,
}

/// What is remembered of all jobs, by UID.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

impl Memory {
    /// What is remembered of a job.
    pub fn of(&self, uid: &str) -> Remembered {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of a job.
    pub fn change(&self, uid: &str, change: impl FnOnce(&mut Remembered)) {
        change(self.lock().entry(uid.to_owned()).or_default());
    }

    /// Forgets jobs that are no longer there.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        // Nothing here is left half-changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_are_gone_are_forgotten() {
        let memory = Memory::default();
        memory.change("a", |job| job.errors += 1);
        memory.change("b", |job| job.errors += 2);
        memory.retain(&HashSet::from(["b".to_owned()]));
        assert_eq!((memory.of("a").errors, memory.of("b").errors), (0, 2));
    }
}
