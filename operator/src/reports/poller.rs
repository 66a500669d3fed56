//! Reads the reports of all jobs, independently of reconciliations.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinSet};
use tracing::debug;

use super::{
    ExpectedSender, ReportError, ReportReader,
    schedule::{MAX_READS, ReportState, Schedule, Target},
};
use crate::{controller::identity::Identity, metrics::Metrics};

/// Reads the reports of all jobs and keeps the newest one of each.
#[derive(Debug)]
pub struct ReportPoller {
    schedule: Mutex<Schedule>,
    /// A target was set.
    targeted: Notify,
    reader: ReportReader,
}

impl ReportPoller {
    /// Creates a poller.
    pub fn new(reader: ReportReader) -> Self {
        Self { schedule: Mutex::default(), targeted: Notify::new(), reader }
    }

    /// Sets the pod that serves the report of a job, and returns the result of the last read.
    pub fn set_target(&self, job: &Identity, target: Option<Target>) -> ReportState {
        let mut schedule = self.lock();
        match target {
            Some(target) => schedule.set_target(job, target, Instant::now()),
            None => schedule.remove(job),
        }
        self.targeted.notify_one();
        schedule.state(job)
    }

    /// Stops reading the report of a deleted job.
    pub fn remove_uid(&self, uid: &str) {
        self.lock().retain(|other| other != uid);
    }

    /// Stops reading the reports of all jobs except these.
    pub fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid| uids.contains(uid));
    }

    /// Number of jobs whose reports are read.
    pub fn jobs(&self) -> usize {
        self.lock().jobs()
    }

    /// The age of the oldest report.
    pub fn oldest(&self) -> Duration {
        self.lock().oldest(Instant::now())
    }

    /// Reads reports forever. Calls `changed` with each job whose report changed.
    pub async fn run(&self, metrics: &Metrics, changed: impl Fn(&Identity)) {
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < MAX_READS
                && let Some((job, target)) = self.take_due()
            {
                let reader = self.reader.clone();
                reads.spawn(async move {
                    let expected = ExpectedSender {
                        job_uid: &job.uid,
                        pod_uid: &target.pod_uid,
                        attempt: target.attempt,
                    };
                    let result = reader.read(target.address, expected).await;
                    (job, target, result)
                });
            }
            let next = self.lock().next_due().filter(|_| reads.len() < MAX_READS);
            let wait = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = self.targeted.notified() => {}
                Some(Ok((job, target, result))) = reads.join_next() => {
                    metrics.record_report_read(result.as_ref().map_or_else(ReportError::outcome, |_| "read"));
                    let result = result.map_err(|error| {
                        debug!(job = %job.name, namespace = %job.namespace, pod = %target.pod, %error, "Cannot read the report.");
                        error.to_string()
                    });
                    if self.lock().finish(&job, &target, result, Instant::now()) {
                        changed(&job);
                    }
                }
            }
        }
    }

    fn take_due(&self) -> Option<(Identity, Target)> {
        self.lock().take_due(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        // A panic leaves no entry half-changed.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
