//! Metrics of the operator. All labels are bounded: none contains the name of a job or a pod.

use std::{
    fs,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::jobs::JobGauges;
pub use self::jobs::Jobs;

mod jobs;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabel {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reconcile_seconds: Family<ResultLabel, Histogram, fn() -> Histogram>,
    queue_seconds: Histogram,
    queue_depth: Gauge,
    requests: Family<RequestLabel, Counter>,
    request_errors: Family<CodeLabel, Counter>,
    reported_jobs: Gauge,
    oldest_report: Gauge<f64, AtomicU64>,
    reports: Family<OutcomeLabel, Counter>,
    undecodable: Counter,
    dropped_events: Counter,
    jobs: JobGauges,
    leader: Gauge,
    memory: Gauge,
    peak_memory: Gauge,
    gauges: Mutex<Option<Box<dyn Fn() -> Gauges + Send>>>,
}

/// Values that are measured when metrics are read.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Number of jobs that wait for a reconciliation.
    pub queue_depth: usize,
    /// Number of jobs whose reports are read.
    pub reported_jobs: usize,
    /// Age of the oldest report.
    pub oldest_report: Duration,
    /// Numbers of jobs.
    pub jobs: Jobs,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("datjob_operator");
        let buckets: fn() -> Histogram = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
            ])
        };
        let reconcile_seconds = Family::new_with_constructor(buckets);
        registry.register(
            "reconcile_duration_seconds",
            "Duration of a reconciliation in seconds, by result (ok, error)",
            reconcile_seconds.clone(),
        );
        let queue_seconds = buckets();
        registry.register(
            "queue_duration_seconds",
            "Time from the change of a job or its objects to the start of the reconciliation, in seconds",
            queue_seconds.clone(),
        );
        let queue_depth = Gauge::default();
        registry.register(
            "queue_depth",
            "Number of jobs that wait for a reconciliation",
            queue_depth.clone(),
        );
        let requests = Family::<RequestLabel, Counter>::default();
        registry.register(
            "api_requests",
            "Requests to the API server, by verb and resource",
            requests.clone(),
        );
        let request_errors = Family::<CodeLabel, Counter>::default();
        registry.register(
            "api_errors",
            "Requests to the API server that failed, by HTTP status (none: no response)",
            request_errors.clone(),
        );
        let reported_jobs = Gauge::default();
        registry.register("reported_jobs", "Number of jobs whose reports are read", reported_jobs.clone());
        let oldest_report = Gauge::<f64, AtomicU64>::default();
        registry.register(
            "oldest_report_seconds",
            "Age of the oldest report of a running job, in seconds",
            oldest_report.clone(),
        );
        let reports = Family::<OutcomeLabel, Counter>::default();
        registry.register(
            "report_reads",
            "Attempts to read a report from a trainer pod, by outcome",
            reports.clone(),
        );
        let undecodable = Counter::default();
        registry.register(
            "undecodable_jobs",
            "Reconciliations of jobs that cannot be decoded",
            undecodable.clone(),
        );
        let dropped_events = Counter::default();
        registry.register(
            "dropped_events",
            "Events that were not published because too many were waiting",
            dropped_events.clone(),
        );
        let jobs = JobGauges::register(&mut registry);
        let leader = Gauge::default();
        registry.register(
            "leader",
            "Whether this operator is the leader (1) or a standby (0)",
            leader.clone(),
        );
        let memory = Gauge::default();
        registry.register("memory_bytes", "Resident memory of this process in bytes", memory.clone());
        let peak_memory = Gauge::default();
        registry.register(
            "peak_memory_bytes",
            "Peak resident memory of this process in bytes",
            peak_memory.clone(),
        );
        Self {
            registry,
            reconcile_seconds,
            queue_seconds,
            queue_depth,
            requests,
            request_errors,
            reported_jobs,
            oldest_report,
            reports,
            undecodable,
            dropped_events,
            jobs,
            leader,
            memory,
            peak_memory,
            gauges: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Records a reconciliation, and how long its job waited after a change.
    pub fn record_reconcile(&self, ok: bool, waited: Option<Duration>, duration: Duration) {
        if let Some(waited) = waited {
            self.queue_seconds.observe(waited.as_secs_f64());
        }
        let label = ResultLabel { result: if ok { "ok" } else { "error" } };
        self.reconcile_seconds.get_or_create(&label).observe(duration.as_secs_f64());
    }

    /// Counts an attempt to read a report.
    pub fn record_report_read(&self, outcome: &'static str) {
        self.reports.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a reconciliation of a job that cannot be decoded.
    pub fn record_undecodable(&self) {
        self.undecodable.inc();
    }

    /// Counts an event that was not published.
    pub fn record_dropped_event(&self) {
        self.dropped_events.inc();
    }

    /// Sets whether this operator is the leader.
    pub fn set_leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
    }

    /// Counts a request to the API server.
    pub fn record_request(&self, verb: &'static str, resource: &'static str) {
        self.requests.get_or_create(&RequestLabel { verb, resource }).inc();
    }

    /// Counts a request to the API server that failed.
    pub fn record_request_error(&self, code: &'static str) {
        self.request_errors.get_or_create(&CodeLabel { code }).inc();
    }

    /// Sets the source of the values that are measured when metrics are read.
    pub fn set_gauges(&self, gauges: impl Fn() -> Gauges + Send + 'static) {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(gauges));
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        self.measure_gauges();
        self.measure_memory();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn measure_memory(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (field, gauge) in [("VmRSS:", &self.memory), ("VmHWM:", &self.peak_memory)] {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<i64>().ok());
            if let Some(kibibytes) = kibibytes {
                gauge.set(kibibytes * 1024);
            }
        }
    }

    fn measure_gauges(&self) {
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let gauges = gauges.as_ref().map(|gauges| gauges()).unwrap_or_default();
        self.queue_depth.set(gauges.queue_depth as i64);
        self.reported_jobs.set(gauges.reported_jobs as i64);
        self.oldest_report.set(gauges.oldest_report.as_secs_f64());
        self.jobs.set(&gauges.jobs);
    }
}

#[cfg(test)]
mod tests;
