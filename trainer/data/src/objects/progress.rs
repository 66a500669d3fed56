//! The progress of the concurrent downloads of a data set's objects, as one number.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use datjob_api::report::PreparationStep;

use crate::DownloadObserver;

/// Adds up the bytes of all objects for an observer.
pub(super) struct TotalProgress {
    observer: Arc<dyn DownloadObserver>,
    bytes: Mutex<Bytes>,
}

#[derive(Default)]
struct Bytes {
    done: u64,
    total: u64,
}

impl TotalProgress {
    pub(super) fn new(observer: Arc<dyn DownloadObserver>) -> Self {
        Self { observer, bytes: Mutex::default() }
    }

    /// Sets the number of bytes of all objects.
    pub(super) fn begin(&self, total: u64) {
        self.change(|bytes| *bytes = Bytes { done: 0, total });
    }

    /// Adds bytes of an object that are on disk.
    pub(super) fn advance(&self, added: u64) {
        if added > 0 {
            self.change(|bytes| bytes.done += added);
        }
    }

    /// Changes the numbers and reports them, one call at a time, so that they never go backwards.
    fn change(&self, change: impl FnOnce(&mut Bytes)) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut bytes);
        self.observer.progress(PreparationStep::Downloading, bytes.done, Some(bytes.total));
    }

    pub(super) fn retrying(&self, error: &dyn Display, retry_in: Duration) {
        self.observer.retrying(error, retry_in);
    }
}
