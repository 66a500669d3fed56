//! Memory and writes of the operator with many jobs.

use std::{thread, time::Duration};

use datjob_e2e::{Namespace, OPERATOR_NAMESPACE, job, kubectl, operator_metric, wait_until};
use serde_json::json;

const JOBS: usize = 100;
const MAX_PEAK_BYTES: f64 = 50.0 * 1024.0 * 1024.0;

/// Number of write requests for the objects of the operator, except Leases and events.
fn write_requests() -> f64 {
    let text = kubectl(&["get", "--raw", "/metrics"], "").expect("the API server serves metrics");
    let written = ["datjobs", "statefulsets", "networkpolicies", "poddisruptionbudgets"];
    text.lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
        .filter(|line| {
            ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|v| line.contains(&format!("verb=\"{v}\"")))
        })
        .filter(|line| written.iter().any(|resource| line.contains(&format!("resource=\"{resource}\""))))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_hundred_idle_jobs_need_little_memory_and_no_writes() {
    let namespace = Namespace::exclusive("scale");
    let jobs: Vec<_> = (0..JOBS)
        .map(|index| {
            let mut document = job::small(&format!("scale-{index}"));
            document["spec"]["pod"]["nodeSelector"] = json!({"datjob.io/none": "none"});
            document
        })
        .collect();
    namespace
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": jobs}))
        .expect("the jobs are accepted");
    wait_until("condition Stalled of all jobs", 300, || {
        let jobs = namespace.list("datjobs", "");
        let stalled = jobs.iter().filter(|object| {
            job::condition(object, "Stalled").is_some_and(|stalled| stalled["status"] == "True")
        });
        match stalled.count() {
            JOBS => Ok(()),
            some => Err(format!("{some} of {JOBS} jobs report unschedulable pods")),
        }
    });
    thread::sleep(Duration::from_secs(20));
    let before = write_requests();
    thread::sleep(Duration::from_mins(1));
    let written = write_requests() - before;
    let peak = operator_metric(OPERATOR_NAMESPACE, "datjob", "datjob_operator_peak_memory_bytes");
    println!(
        "{JOBS} jobs: peak memory {:.1} MiB, {written} writes in a minute without change",
        peak / 1_048_576.0
    );
    assert!(written.abs() < 0.5, "{written} writes in a minute without change");
    assert!(peak < MAX_PEAK_BYTES, "peak memory {peak} bytes");
}
