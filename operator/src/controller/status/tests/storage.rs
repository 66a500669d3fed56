//! Pods that wait for their storage.

use datjob_api::report::{StorageTrouble, WaitingForStorage};

use super::*;
use crate::conditions::STORAGE_TROUBLE;

#[test]
fn a_fault_of_storage_is_a_condition_until_it_passes() {
    let mut sim = JobSimulation::training();
    sim.report(|_| {});
    assert_eq!(conditions::find(sim.status(), STORAGE_TROUBLE), None);
    sim.reasons();
    let waiting = |error: &str| {
        let message = format!("cannot write /checkpoints/uid/x: ({error})");
        let trouble = StorageTrouble { error: error.into(), message, since: 0 };
        Some(WaitingForStorage { pods: 1, pod: 0, trouble })
    };
    assert_eq!(sim.report(|report| report.storage = waiting("ENOSPC")).state, "Running");
    let expected =
        "Pod fashion-0 retries since 1970-01-01T00:00:00Z: cannot write /checkpoints/uid/x: (ENOSPC).";
    assert_eq!(sim.condition(STORAGE_TROUBLE), ("True", "VolumeFull", expected));
    assert_eq!((sim.condition(READY).0, sim.condition(STALLED).0), ("True", "False"));
    assert_eq!(sim.reasons(), ["StorageTrouble"]);
    // Another fault meanwhile emits no second event.
    sim.report(|report| report.storage = waiting("EROFS"));
    assert_eq!(sim.condition(STORAGE_TROUBLE).1, "VolumeReadOnly");
    assert_eq!(sim.reasons(), [] as [&str; 0]);
    // An agent that does not answer says nothing about its storage.
    sim.observe(sim.pods.clone(), unread(1));
    assert_eq!(sim.condition(STORAGE_TROUBLE).0, "True");
    sim.report(|_| {});
    assert_eq!(sim.condition(STORAGE_TROUBLE), ("False", "Recovered", "The storage works again."));
    assert_eq!(sim.reasons(), [] as [&str; 0]);

    sim.report(|report| report.storage = waiting("EIO"));
    assert_eq!(sim.condition(STORAGE_TROUBLE).1, "VolumeUnavailable");
    sim.observe(Vec::new(), ReportState::NoPod);
    assert_eq!((sim.condition(STORAGE_TROUBLE).0, sim.condition(STORAGE_TROUBLE).1), ("False", "PodsEnded"));
    sim.report(|report| report.storage = waiting("EIO"));
    sim.report(|report| {
        report.phase = Phase::Failed;
        report.failure = Some(failure(FailureReason::Data));
        report.storage = waiting("EIO");
    });
    assert_eq!((sim.status().state.as_str(), sim.condition(STORAGE_TROUBLE).0), ("Failed", "False"));
}

#[test]
fn a_fault_of_storage_does_not_miss_the_startup_deadline() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    for _ in 0..3 {
        sim.second += 2_000;
        sim.report(|report| {
            report.phase = Phase::Forming;
            report.generation = 0;
            let (error, message) = ("ENOSPC".into(), "cannot write generation".into());
            report.storage = Some(WaitingForStorage {
                pods: 1,
                pod: 0,
                trouble: StorageTrouble { error, message, since: 0 },
            });
        });
        assert_eq!((sim.status().attempt, sim.status().restarts.total), (1, 0));
    }
}
