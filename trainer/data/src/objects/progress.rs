//! The progress of the concurrent downloads of a data set's objects, as one number.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use datjob_api::report::PreparationStep;

use crate::DownloadObserver;

/// Adds up the bytes of all objects for an observer.
pub(super) struct TotalProgress {
    observer: Arc<dyn DownloadObserver>,
    done: AtomicU64,
    total: AtomicU64,
}

impl TotalProgress {
    pub(super) fn new(observer: Arc<dyn DownloadObserver>) -> Self {
        Self { observer, done: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    /// The objects have so many bytes.
    pub(super) fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.report(0);
    }

    /// So many more bytes of an object are on disk.
    pub(super) fn advance(&self, bytes: u64) {
        if bytes > 0 {
            self.report(self.done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
    }

    fn report(&self, done: u64) {
        let total = self.total.load(Ordering::Relaxed);
        self.observer.progress(PreparationStep::Downloading, done, Some(total));
    }

    pub(super) fn retrying(&self, error: &dyn Display, retry_in: Duration) {
        self.observer.retrying(error, retry_in);
    }
}
