//! Pods that prepare data: the error of the source, and the startup deadline.

use datjob_api::report::{Preparation, PreparationState, PreparationStep};

use super::*;

fn preparation(done: u64, error: Option<&str>) -> Preparation {
    let state = PreparationState {
        step: PreparationStep::Downloading,
        done,
        total: Some(100),
        error: error.map(str::to_owned),
    };
    Preparation { pods: 1, pod: 1, state }
}

/// Pod 0 has its data, and pod 1 downloads.
fn forming(report: &mut Report) {
    report.phase = Phase::Forming;
    report.generation = 0;
    report.pods_joined = 1;
}

#[test]
fn the_error_of_a_source_is_in_the_conditions_until_it_passes() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    sim.report(|report| {
        forming(report);
        report.phase = Phase::Preparing;
        report.preparation = Some(preparation(25, None));
    });
    let expected = "1 of 2 pods is preparing the data; the slowest has downloaded 20 % of 100 bytes.";
    assert_eq!(sim.condition(READY), ("False", "Starting", expected));
    sim.reasons();

    let refused = "cannot download http://data/x.tar: connection refused";
    let failing = |error: &'static str| {
        move |report: &mut Report| {
            forming(report);
            report.preparation = Some(preparation(25, Some(error)));
        }
    };
    sim.report(failing(refused));
    let expected = format!("Pod fashion-1 waits for the source of its data: {refused}.");
    assert_eq!(sim.condition(RECONCILING), ("True", "DataSourceUnavailable", expected.as_str()));
    assert_eq!(sim.condition(READY), ("False", "DataSourceUnavailable", expected.as_str()));
    assert_eq!(sim.condition(STALLED).0, "False");
    assert_eq!(sim.reasons(), ["Blocked"]);
    // The next attempt of the download: another message, and no second event.
    sim.report(failing("cannot download http://data/x.tar: timed out"));
    assert!(sim.condition(READY).2.ends_with("timed out."));
    assert_eq!(sim.reasons(), [] as [&str; 0]);

    sim.report(|report| {
        forming(report);
        report.preparation = Some(preparation(90, None));
    });
    assert_eq!(sim.condition(READY).1, "Starting");
    sim.report(|report| report.preparation = Some(preparation(90, Some("late"))));
    assert_eq!(sim.condition(READY).1, "Training", "a world has formed");
}

#[test]
fn a_problem_for_a_person_comes_before_the_error_of_a_source() {
    let mut sim = JobSimulation::new();
    sim.pods = vec![running("fashion-0"), unschedulable("fashion-1")];
    sim.start(1);
    sim.report(|report| {
        forming(report);
        report.preparation = Some(preparation(0, Some("refused")));
    });
    assert_eq!(sim.condition(STALLED).1, "VolumeClaimMissing");
}

#[test]
fn an_error_is_bounded_and_on_one_line() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    sim.report(|report| {
        forming(report);
        report.preparation = Some(preparation(0, Some(&"x\n".repeat(5_000))));
    });
    let message = sim.condition(READY).2;
    assert!(message.len() < 600 && !message.contains('\n'), "{message}");
}

#[test]
fn the_startup_deadline_counts_from_the_last_progress_of_a_preparation() {
    for phase in [Phase::Preparing, Phase::Forming] {
        let mut sim = JobSimulation::new();
        sim.start(1);
        let report = |idle: u32| {
            move |report: &mut Report| {
                forming(report);
                report.phase = phase;
                report.preparation = Some(preparation(3, Some("connection refused")));
                report.preparation_idle_seconds = Some(idle);
            }
        };
        for _ in 0..3 {
            sim.second += 3_600;
            assert_eq!(sim.report(report(1_800)).attempt, 1, "{phase:?}: it progresses");
        }
        assert_eq!(sim.report(report(1_810)).attempt, 2, "{phase:?}: no progress for half an hour");
        let message = sim.condition(READY).2;
        assert!(message.contains("waits for the source of its data: connection refused"), "{message}");
    }
}

#[test]
fn a_world_that_does_not_form_after_the_preparation_misses_the_deadline() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    let report = |idle: u32| {
        move |report: &mut Report| {
            forming(report);
            report.preparation_idle_seconds = Some(idle);
        }
    };
    sim.second += 10_000;
    // Without the preparation, the wait would have been longer than the deadline.
    assert_eq!(sim.report(report(0)).attempt, 1);
    assert_eq!(sim.report(report(1_810)).attempt, 2);
    // The pods of a new attempt wait since its start, whatever happened before.
    sim.start(2);
    assert_eq!(sim.report(report(1_810)).attempt, 2);
}
