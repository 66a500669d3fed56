//! A fault in each job. The job recovers, and its outcome is that of a job without a fault.

use std::{
    fs,
    time::{Duration, Instant},
};

use datjob_api::report::{FailureReason, Phase};
use datjob_trainer::rendezvous::lease::LOST_AFTER;
use rustix::{io::Errno, process::Signal};

use crate::{
    fault::{cut_link, kill, replace, terminate},
    job::Job,
    privileges::with_privileges,
    signals::{is_stopped, signal},
    storage_fault::StorageFault,
    undisturbed::{SHORT, epochs_lasting, manifest, undisturbed},
};

#[test]
fn a_job_recovers_from_a_killed_worker() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let mut job = Job::start(&manifest(SHORT));
        let before = job.wait_for_second_epoch();
        let worker = job.worker(1).unwrap();
        assert!(kill(&mut job, worker));
        let failure = job.wait_for_next_world(&before).failure.unwrap();
        assert_eq!((failure.reason, failure.rank), (FailureReason::Crash, Some(1)), "{failure:?}");
        assert_eq!(job.finish(), expected.outcome);
    });
}

#[test]
fn a_job_recovers_from_a_deleted_pod() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let mut job = Job::start(&manifest(SHORT));
        let before = job.wait_for_second_epoch();
        assert!(replace(&mut job, 2));
        job.wait_for_next_world(&before);
        let report = job.until("report of pod 2", |job| job.report_of(2));
        assert_eq!(report.pod_uid, job.pod(2).uid());
        assert_eq!(job.finish(), expected.outcome);
    });
}

#[test]
fn a_job_recovers_from_a_deleted_pod_0() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let mut job = Job::start(&manifest(SHORT));
        let before = job.wait_for_second_epoch();
        assert!(replace(&mut job, 0));
        let after = job.wait_for_next_world(&before);
        assert_eq!(after.pod_uid, job.pod(0).uid());
        assert_ne!(after.pod_uid, before.pod_uid);
        assert_eq!(job.finish(), expected.outcome);
    });
}

/// Training goes on until the rendezvous ends the world, so it must last longer than that.
#[test]
fn a_job_recovers_from_an_agent_that_is_stopped_longer_than_its_lease() {
    with_privileges(|| {
        let epochs = epochs_lasting(LOST_AFTER + Duration::from_secs(4));
        let expected = undisturbed(epochs);
        let mut job = Job::start(&manifest(epochs));
        let before = job.wait_for_training();
        let agent = job.pod(1).agent();
        assert!(signal(agent, Signal::STOP));
        let started = Instant::now();
        job.wait_for("end of the world", |report| report.phase == Phase::Forming);
        assert!(is_stopped(agent) && started.elapsed() > LOST_AFTER / 2);
        assert!(signal(agent, Signal::CONT));
        job.wait_for_next_world(&before);
        assert_eq!(job.finish(), expected.outcome);
    });
}

#[test]
fn a_job_recovers_from_a_link_that_is_cut() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let mut job = Job::start(&manifest(SHORT));
        let before = job.wait_for_second_epoch();
        assert!(cut_link(&mut job, 3, Duration::from_secs(15)));
        job.wait_for_next_world(&before);
        assert_eq!(job.finish(), expected.outcome);
    });
}

/// The replacement goes on from the step after which the pod left.
fn a_terminated_pod_leaves_after_a_checkpoint(pod: u32) {
    let expected = undisturbed(SHORT);
    let mut job = Job::start(&manifest(SHORT));
    let before = job.wait_for_second_epoch();
    assert!(terminate(&mut job, pod));
    let log = job.pod(pod).log();
    assert!(log.contains("Left the job; exiting. saved=true"), "{log}");
    let step = newest_step_of_second_epoch(&job);
    assert!(replace(&mut job, pod));
    job.wait_for_next_world(&before);
    assert_eq!(job.finish(), expected.outcome);
    let log = job.pod(0).log();
    let (_, resumed) = log.split_once("Resumed from a checkpoint. epoch=1 step_of_epoch=").unwrap();
    assert_eq!(resumed.split(' ').next(), Some(step.to_string().as_str()), "{log}");
}

/// The step within the second epoch of the newest checkpoint.
fn newest_step_of_second_epoch(job: &Job) -> u64 {
    let step = |name: &str| name.strip_prefix("checkpoint-0001-")?.strip_suffix(".json")?.parse::<u64>().ok();
    let names = fs::read_dir(job.file("")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| step(name.to_str()?)).max().unwrap()
}

#[test]
fn a_terminated_pod_0_leaves_after_a_checkpoint() {
    with_privileges(|| a_terminated_pod_leaves_after_a_checkpoint(0));
}

#[test]
fn a_terminated_pod_2_leaves_after_a_checkpoint() {
    with_privileges(|| a_terminated_pod_leaves_after_a_checkpoint(2));
}

/// Training goes on while its checkpoint cannot be written, and the world stays.
#[test]
fn a_job_waits_for_a_full_checkpoint_volume() {
    with_privileges(|| {
        let expected = undisturbed(SHORT);
        let full = StorageFault { call: "write", path: "/checkpoint-0001-", error: Some(Errno::NOSPC) };
        let mut job = Job::start_with_fault(&manifest(SHORT), Some((0, full)));
        job.begin_storage_fault();
        let report = job.wait_for("fault of storage", |report| report.storage.is_some());
        let waiting = report.storage.unwrap();
        assert_eq!((waiting.pods, waiting.pod, waiting.trouble.error.as_str()), (1, 0, "ENOSPC"));
        job.wait_for("end of the second epoch", |report| {
            report.progress.as_ref().is_some_and(|progress| progress.epoch == SHORT)
        });
        assert!(job.storage_fault_strikes() > 0);
        job.end_storage_fault();
        assert_eq!(job.finish(), expected.outcome);
        assert_eq!(job.until("report", Job::observe).generation, 1);
    });
}
