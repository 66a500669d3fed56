//! What the threads of this process wait for: other ranks, or a device.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

/// The waits of all threads. A process has one: whoever watches it asks from another thread.
static WAITS: Mutex<Vec<(u64, ThreadId, &'static str)>> = Mutex::new(Vec::new());
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn waits() -> MutexGuard<'static, Vec<(u64, ThreadId, &'static str)>> {
    // Every change is whole.
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A wait of the current thread, until it is dropped. All blocking functions of this crate have one.
#[derive(Debug)]
pub struct Waiting(u64);

impl Waiting {
    /// Begins to wait in this operation.
    pub fn begin(operation: &'static str) -> Self {
        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        waits().push((number, thread::current().id(), operation));
        Self(number)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        waits().retain(|(number, ..)| *number != self.0);
    }
}

/// The operation in which a thread waits: the outermost one.
pub fn waits_in(thread: ThreadId) -> Option<&'static str> {
    waits().iter().find(|(_, waiting, _)| *waiting == thread).map(|(.., operation)| *operation)
}

/// The number of waits of this process that have begun.
pub fn waits_begun() -> u64 {
    BEGUN.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_in_its_outermost_operation() {
        let own = thread::current().id();
        assert_eq!(waits_in(own), None);
        let before = waits_begun();
        let outer = Waiting::begin("all_reduce");
        {
            let _inner = Waiting::begin("broadcast");
            assert_eq!(waits_in(own), Some("all_reduce"));
            assert_eq!(thread::spawn(move || waits_in(thread::current().id())).join().unwrap(), None);
            assert_eq!(thread::spawn(move || waits_in(own)).join().unwrap(), Some("all_reduce"));
        }
        drop(outer);
        assert_eq!(waits_in(own), None);
        assert!(waits_begun() >= before + 2);
    }
}
