//! Hangs. They are noticed after a minute at the earliest, so `make chaos` runs these tests.

use std::{
    fs,
    time::{Duration, Instant},
};

use datjob_api::report::FailureReason;
use rustix::process::Signal;

use crate::{
    job::Job,
    privileges::with_privileges,
    signals::{is_stopped, signal},
    storage_fault::StorageFault,
    undisturbed::{PODS, SHORT, manifest, undisturbed},
};

#[test]
#[ignore = "takes more than a minute; `make chaos` runs it"]
fn a_job_recovers_from_a_worker_that_is_stopped() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let mut job = Job::start(&manifest(SHORT));
        let before = job.wait_for_second_epoch();
        let worker = job.worker(1).unwrap();
        assert!(signal(worker, Signal::STOP));
        let started = Instant::now();
        let failure = job.wait_for_next_world(&before).failure.unwrap();
        let elapsed = started.elapsed();
        assert_eq!((failure.reason, failure.rank), (FailureReason::Hang, Some(1)), "{failure:?}");
        assert!(failure.message.contains("has sent no pulse for 6"), "{failure:?}");
        assert!(failure.message.contains("pods 0, 2 and 3 wait in "), "{failure:?}");
        // The container has no /proc of its process IDs.
        assert!(failure.log_tail[0].starts_with("state of the process: "), "{failure:?}");
        let log = fs::read_to_string(job.file("../").join(failure.log_file.unwrap())).unwrap();
        assert!(log.contains("trainer/src/engine.rs:"), "{log}");
        assert!(elapsed > Duration::from_secs(55) && elapsed < Duration::from_secs(90), "{elapsed:?}");
        assert!(!is_stopped(worker), "it was killed");
        for pod in 0..PODS {
            // The others wait for the one that hangs.
            assert_eq!(job.pod(pod).log().contains("Ending a worker that hangs"), pod == 1, "pod {pod}");
        }
        assert_eq!(job.finish(), expected.outcome);
    });
}

#[test]
#[ignore = "takes more than a minute; `make chaos` runs it"]
fn a_job_waits_for_images_whose_storage_does_not_answer() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let silent = StorageFault { call: "open", path: "/data/train/3/", error: None };
        let mut job = Job::start_with_fault(&manifest(SHORT), Some((2, silent)));
        job.wait_for_training();
        job.begin_storage_fault();
        let report = job.wait_for("fault of storage", |report| report.storage.is_some());
        let waiting = report.storage.unwrap();
        assert_eq!((waiting.pods, waiting.pod, waiting.trouble.error.as_str()), (1, 2, "no answer"));
        assert!(waiting.trouble.message.ends_with(": the storage has not answered"), "{waiting:?}");
        job.observe_for(Duration::from_mins(1));
        job.end_storage_fault();
        assert!(job.storage_fault_strikes() > 0);
        assert_eq!(job.finish(), expected.outcome);
        assert_eq!(job.until("report", Job::observe).generation, 1, "nobody hangs");
    });
}
