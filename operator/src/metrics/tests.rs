//! Metrics in the text format.

use super::*;
use crate::controller::status::State;

#[test]
fn encodes_all_metrics() {
    let metrics = Metrics::default();
    metrics.record_reconcile(true, Some(Duration::from_millis(2)), Duration::from_millis(3));
    metrics.record_request("create", "services");
    metrics.set_gauges(|| Gauges {
        queue_depth: 3,
        jobs: Jobs { states: vec![State::Running; 2], stalled: 4, foreign: 5 },
        ..Gauges::default()
    });
    metrics.record_report_read("read");
    metrics.record_dropped_event();
    metrics.set_leader(true);
    let text = metrics.encode();
    for line in [
        "datjob_operator_reconcile_duration_seconds_count{result=\"ok\"} 1",
        "datjob_operator_report_reads_total{outcome=\"read\"} 1",
        "datjob_operator_queue_duration_seconds_count 1",
        "datjob_operator_queue_depth 3",
        "datjob_operator_api_requests_total{verb=\"create\",resource=\"services\"} 1",
        "datjob_operator_jobs{state=\"Running\"} 2",
        "datjob_operator_stalled_jobs 4",
        "datjob_operator_foreign_jobs 5",
        "datjob_operator_dropped_events_total 1",
        "datjob_operator_leader 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("memory_bytes 0"), "{text}");
}
