//! Operations on files that have not returned. A server that does not answer delays them without an error.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use datjob_api::report::StorageTrouble;

use super::unix_seconds;
use crate::pulse;

/// An operation that takes longer waits for its storage. The flush of a large checkpoint to a slow volume takes less.
const SLOW_AFTER: Duration = Duration::from_secs(30);

struct Operation {
    number: u64,
    action: &'static str,
    path: PathBuf,
    begin: Instant,
    since: u64,
}

/// The operations that have not returned, the oldest one first.
static PENDING: Mutex<Vec<Operation>> = Mutex::new(Vec::new());

fn pending() -> MutexGuard<'static, Vec<Operation>> {
    // Every change is whole.
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs an operation on a file or directory. While it takes long, [`oldest_trouble`](super::oldest_trouble) has it. Its
/// return is a [pulse](crate::pulse). `action` is a verb ("read").
pub fn track<T>(action: &'static str, path: &Path, operation: impl FnOnce() -> T) -> T {
    let _tracked = Tracked::begin(action, path);
    operation()
}

/// Removes an operation when it returns, and also when it panics.
struct Tracked(u64);

impl Tracked {
    fn begin(action: &'static str, path: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (begin, since) = (Instant::now(), unix_seconds());
        pending().push(Operation { number, action, path: path.to_owned(), begin, since });
        Self(number)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        pending().retain(|operation| operation.number != self.0);
        pulse::beat();
    }
}

/// The oldest operation that takes long.
pub(super) fn oldest() -> Option<StorageTrouble> {
    slow(&pending(), SLOW_AFTER)
}

fn slow(operations: &[Operation], slow_after: Duration) -> Option<StorageTrouble> {
    let oldest = operations.iter().find(|operation| operation.begin.elapsed() > slow_after)?;
    let Operation { action, path, since, .. } = oldest;
    let message = format!("cannot {action} {}: the storage has not answered", path.display());
    Some(StorageTrouble { error: "no answer".to_owned(), message, since: *since })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_below(directory: &str, slow_after: Duration) -> Option<StorageTrouble> {
        // Other tests of this process read files too.
        let mut operations = pending();
        let (mut own, others) =
            operations.drain(..).partition(|operation| operation.path.starts_with(directory));
        *operations = others;
        let found = slow(&own, slow_after);
        operations.append(&mut own);
        found
    }

    #[test]
    fn an_operation_that_does_not_return_is_a_fault_until_it_does() {
        let before = pulse::count();
        track("open", Path::new("/pending/outer"), || {
            track("read", Path::new("/pending/inner"), || {
                let found = slow_below("/pending", Duration::ZERO).unwrap();
                assert_eq!(found.message, "cannot open /pending/outer: the storage has not answered");
                assert!(found.error == "no answer" && found.since > 1_700_000_000);
                assert_eq!(slow_below("/pending", SLOW_AFTER), None, "it has not taken long");
            });
        });
        assert_eq!(slow_below("/pending", Duration::ZERO), None);
        assert!(pulse::count() >= before + 2);
    }
}
