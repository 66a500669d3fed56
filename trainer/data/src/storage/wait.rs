//! Operations that wait until a fault of storage passes.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use datjob_api::report::StorageTrouble;

/// What the operations of this process wait for, by the number of their [`Wait`].
static WAITING: Mutex<Vec<(u64, StorageTrouble)>> = Mutex::new(Vec::new());

fn waiting() -> MutexGuard<'static, Vec<(u64, StorageTrouble)>> {
    // Every change is whole.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fault that this process has waited for longest, if it waits for one.
pub(super) fn oldest() -> Option<StorageTrouble> {
    waiting().iter().map(|(_, trouble)| trouble).min_by_key(|trouble| trouble.since).cloned()
}

/// An operation that waits until its storage works again. [`oldest_trouble`](super::oldest_trouble) has its fault until this
/// value is dropped.
#[derive(Debug)]
pub struct Wait(u64);

impl Wait {
    /// Begins to wait after a fault.
    pub fn begin(trouble: StorageTrouble) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        waiting().push((number, trouble));
        Self(number)
    }

    /// Replaces the fault by that of a retry. The time of the first one stays.
    pub fn update(&self, trouble: StorageTrouble) {
        if let Some((_, known)) = waiting().iter_mut().find(|(number, _)| *number == self.0) {
            *known = StorageTrouble { since: known.since, ..trouble };
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        waiting().retain(|(number, _)| *number != self.0);
    }
}

#[cfg(test)]
pub(super) fn messages() -> Vec<String> {
    waiting().iter().map(|(_, trouble)| trouble.message.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_gives_the_time() {
        let at =
            |since, message: &str| StorageTrouble { error: "EIO".into(), message: message.into(), since };
        let wait = Wait::begin(at(5, "/time/a"));
        wait.update(at(9, "/time/b"));
        let known = waiting().iter().map(|(_, trouble)| trouble.clone()).find(|one| one.message == "/time/b");
        assert_eq!(known, Some(at(5, "/time/b")));
        drop(wait);
        assert!(messages().iter().all(|message| !message.contains("/time/")));
    }
}
