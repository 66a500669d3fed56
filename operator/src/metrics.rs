//! Metrics of the operator. All labels are bounded: none contains the name of a job or a pod.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kube::runtime::reflector::Store;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::controller::{identity::Watched, status::State};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reconcile_seconds: Family<ResultLabel, Histogram, fn() -> Histogram>,
    reports: Family<OutcomeLabel, Counter>,
    undecodable: Counter,
    jobs: Family<StateLabel, Gauge>,
    leader: Gauge,
    memory: Gauge,
    peak_memory: Gauge,
    store: Mutex<Option<Store<Watched>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("datjob_operator");
        let buckets: fn() -> Histogram =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let reconcile_seconds = Family::new_with_constructor(buckets);
        registry.register(
            "reconcile_duration_seconds",
            "Duration of a reconciliation in seconds, by result (ok, error)",
            reconcile_seconds.clone(),
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
        let jobs = Family::<StateLabel, Gauge>::default();
        registry.register("jobs", "Number of jobs, by state", jobs.clone());
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
        let store = Mutex::default();
        Self { registry, reconcile_seconds, reports, undecodable, jobs, leader, memory, peak_memory, store }
    }
}

impl Metrics {
    /// Records a reconciliation.
    pub fn record_reconcile(&self, ok: bool, duration: Duration) {
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

    /// Sets whether this operator is the leader.
    pub fn set_leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
    }

    /// Sets the store whose jobs are counted.
    pub fn set_store(&self, store: Store<Watched>) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        self.count_jobs();
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

    fn count_jobs(&self) {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = store.as_ref().map(Store::state).unwrap_or_default();
        for state in State::ALL {
            let count = jobs
                .iter()
                .filter_map(|job| job.0.as_ref().ok())
                .filter(|job| State::parse(job.status.as_ref().map_or("", |status| &status.state)) == state)
                .count();
            self.jobs.get_or_create(&StateLabel { state: state.as_str() }).set(count as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_all_metrics() {
        let metrics = Metrics::default();
        metrics.record_reconcile(true, Duration::from_millis(3));
        metrics.record_report_read("read");
        metrics.set_leader(true);
        let text = metrics.encode();
        for line in [
            "datjob_operator_reconcile_duration_seconds_count{result=\"ok\"} 1",
            "datjob_operator_report_reads_total{outcome=\"read\"} 1",
            "datjob_operator_jobs{state=\"Running\"} 0",
            "datjob_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("memory_bytes 0"), "{text}");
    }
}
