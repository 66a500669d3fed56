//! Decides when to read the report of which job: often while a job changes, rarely while it does not, and more and more
//! rarely while its pod does not answer. Pure: the time is a parameter.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use datjob_api::report::Report;

use crate::controller::identity::Identity;

/// Interval while a job changes, and after the first failed read.
pub const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest pause between two reads of a job whose pods change.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Interval while only the progress of a job changes.
const MAX_INTERVAL: Duration = Duration::from_secs(30);
/// Longest interval between failed reads.
const MAX_SILENT_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum number of concurrent reads.
pub const MAX_READS: usize = 64;
/// Maximum number of concurrent reads in a namespace. A read of a silent pod takes seconds; the other namespaces must not
/// wait for it.
const MAX_READS_PER_NAMESPACE: usize = MAX_READS / 4;

/// The pod that serves the report of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Address of the pod.
    pub address: IpAddr,
    /// The running attempt.
    pub attempt: u32,
    /// Whether the pod is ready. A pod that is not may not serve yet.
    pub ready: bool,
    /// Hash of the states of the job's pods. When it changes, a world has often ended or formed.
    pub pods_hash: u64,
}

impl Target {
    fn is_same_pod(&self, other: &Self) -> bool {
        Self { ready: other.ready, pods_hash: other.pods_hash, ..self.clone() } == *other
    }
}

/// Result of reading the report of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReportState {
    /// The pod that serves the report does not run.
    #[default]
    NoPod,
    /// The pod runs; its report has not been read yet.
    Pending,
    /// The report.
    Received(Arc<Report>),
    /// The pod runs, but its report cannot be read.
    Unreadable {
        /// Name of the pod.
        pod: String,
        /// The error.
        message: String,
        /// Number of consecutive failures while the pod was ready.
        failures: u32,
    },
}

#[derive(Debug)]
struct Entry {
    target: Target,
    state: ReportState,
    /// When something other than the progress changed.
    changed: Instant,
    /// When the last read ended.
    read: Option<Instant>,
    /// When the last report was received.
    received: Option<Instant>,
    /// Number of consecutive failed reads.
    silent: u32,
    /// When the next read is due; `None` during a read.
    due: Option<Instant>,
}

/// The jobs whose reports are read.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<Identity, Entry>,
    due: BTreeSet<(Instant, Identity)>,
    /// Concurrent reads by namespace.
    reads: HashMap<String, usize>,
    /// Due jobs of namespaces that have [`MAX_READS_PER_NAMESPACE`] reads.
    parked: HashMap<String, VecDeque<Identity>>,
}

impl Schedule {
    /// Sets the pod that serves the report of a job. Its first read is due at once, and the next one soon when pods of the job
    /// change.
    pub fn set_target(&mut self, job: &Identity, target: Target, now: Instant) {
        if let Some(entry) = self.entries.get_mut(job)
            && entry.target.is_same_pod(&target)
        {
            let before = std::mem::replace(&mut entry.target, target);
            if entry.target == before {
                return;
            }
            entry.changed = now;
            if entry.target.ready && !before.ready {
                entry.silent = 0;
            }
            // During a read there is no due time; after it, the next one is due soon, because something has changed.
            if let Some(due) = entry.due {
                let soonest = entry.read.map_or(now, |read| now.max(read + MIN_PAUSE));
                entry.due = Some(due.min(soonest));
                self.due.remove(&(due, job.clone()));
                self.due.insert((due.min(soonest), job.clone()));
            }
            return;
        }
        self.remove(job);
        let state = ReportState::Pending;
        let entry =
            Entry { target, state, changed: now, read: None, received: None, silent: 0, due: Some(now) };
        self.entries.insert(job.clone(), entry);
        self.due.insert((now, job.clone()));
    }

    /// Stops reading the report of a job.
    pub fn remove(&mut self, job: &Identity) {
        if let Some(due) = self.entries.remove(job).and_then(|entry| entry.due) {
            self.due.remove(&(due, job.clone()));
        }
    }

    /// Stops reading the reports of all jobs whose UID is not wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let jobs: Vec<Identity> = self.entries.keys().filter(|job| !is_wanted(&job.uid)).cloned().collect();
        for job in jobs {
            self.remove(&job);
        }
    }

    /// The result of the last read.
    pub fn state(&self, job: &Identity) -> ReportState {
        self.entries.get(job).map(|entry| entry.state.clone()).unwrap_or_default()
    }

    /// The next job whose report must be read now. The read must be [`finish`](Self::finish)ed.
    pub fn take_due(&mut self, now: Instant) -> Option<(Identity, Target)> {
        while let Some((due, job)) = self.due.pop_first() {
            if due > now {
                self.due.insert((due, job));
                return None;
            }
            let Some(entry) = self.entries.get_mut(&job) else { continue };
            entry.due = None;
            let reads = self.reads.entry(job.namespace.clone()).or_default();
            if *reads < MAX_READS_PER_NAMESPACE {
                *reads += 1;
                return Some((job, entry.target.clone()));
            }
            self.parked.entry(job.namespace.clone()).or_default().push_back(job);
        }
        None
    }

    /// When the next read is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Records the result of a read. Returns whether it differs from the previous one.
    pub fn finish(
        &mut self,
        job: &Identity,
        target: &Target,
        result: Result<Report, String>,
        now: Instant,
    ) -> bool {
        self.release(&job.namespace, now);
        let Some(entry) = self.entries.get_mut(job) else { return false };
        if !entry.target.is_same_pod(target) || entry.due.is_some() {
            // A read of an earlier pod.
            return false;
        }
        entry.read = Some(now);
        let state = match result {
            Ok(report) => {
                entry.received = Some(now);
                entry.silent = 0;
                ReportState::Received(Arc::new(report))
            }
            Err(message) => {
                entry.silent += 1;
                let before = match &entry.state {
                    ReportState::Unreadable { failures, .. } if entry.target.ready => *failures,
                    _ => 0,
                };
                ReportState::Unreadable { pod: target.pod.clone(), message, failures: before + 1 }
            }
        };
        if !differs_only_in_progress(&entry.state, &state) {
            entry.changed = now;
        }
        let due = now + interval(&state, now.duration_since(entry.changed), entry.silent);
        entry.due = Some(due);
        self.due.insert((due, job.clone()));
        let changed = entry.state != state;
        entry.state = state;
        changed
    }

    /// Number of jobs whose reports are read.
    pub fn jobs(&self) -> usize {
        self.entries.len()
    }

    /// The age of the oldest report.
    pub fn oldest(&self, now: Instant) -> Duration {
        let ages = self.entries.values().filter_map(|entry| Some(now.duration_since(entry.received?)));
        ages.max().unwrap_or_default()
    }

    /// Ends a read in a namespace. A job that waited for it is due.
    fn release(&mut self, namespace: &str, now: Instant) {
        if let Some(reads) = self.reads.get_mut(namespace) {
            *reads -= 1;
            if *reads == 0 {
                self.reads.remove(namespace);
            }
        }
        let Some(parked) = self.parked.get_mut(namespace) else { return };
        while let Some(job) = parked.pop_front() {
            if let Some(entry) = self.entries.get_mut(&job).filter(|entry| entry.due.is_none()) {
                entry.due = Some(now);
                self.due.insert((now, job));
                break;
            }
        }
        if parked.is_empty() {
            self.parked.remove(namespace);
        }
    }
}

/// How long to wait after a read with this result. `unchanged`: since something other than the progress changed; `silent`:
/// consecutive failed reads.
fn interval(state: &ReportState, unchanged: Duration, silent: u32) -> Duration {
    match state {
        ReportState::NoPod | ReportState::Pending => MIN_INTERVAL,
        ReportState::Received(report) => {
            // The end of the training, or of the evaluation, is a change.
            let remaining = match (&report.evaluation, &report.progress) {
                (Some(evaluation), _) => evaluation.remaining_seconds,
                (None, Some(progress)) => Some(progress.remaining_seconds),
                (None, None) => None,
            };
            let longest = remaining.map_or(MAX_INTERVAL, |remaining| Duration::from_secs(remaining / 2));
            // A change is seen within a sixth of the time since the previous one.
            (unchanged / 6).min(longest).clamp(MIN_INTERVAL, MAX_INTERVAL)
        }
        ReportState::Unreadable { .. } => {
            (MIN_INTERVAL * (1 << silent.saturating_sub(1).min(6))).min(MAX_SILENT_INTERVAL)
        }
    }
}

fn differs_only_in_progress(before: &ReportState, after: &ReportState) -> bool {
    match (before, after) {
        (ReportState::Received(before), ReportState::Received(after)) => {
            let without = |report: &Report| without_progress(report.clone());
            without(before) == without(after)
        }
        (ReportState::Unreadable { .. }, ReportState::Unreadable { .. }) => true,
        _ => false,
    }
}

fn without_progress(mut report: Report) -> Report {
    if let Some(preparation) = &mut report.preparation {
        preparation.state.done = 0;
        preparation.pods = 0;
        if preparation.state.error.is_none() {
            // Pods of about the same speed take turns as the slowest.
            preparation.pod = 0;
        }
    }
    Report { progress: None, timing: None, evaluation: None, preparation_idle_seconds: None, ..report }
}

#[cfg(test)]
mod tests;
