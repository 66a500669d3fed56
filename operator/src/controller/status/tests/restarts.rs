//! Restarts, their limit, and the startup deadline.

use super::*;

fn with_uid(mut pod: Pod, uid: &str) -> Pod {
    pod.metadata.uid = Some(uid.into());
    pod
}

impl JobSimulation {
    /// A world of pods with these UIDs.
    fn world(&mut self, generation: u32, uids: [&str; 2], change: impl FnOnce(&mut Report)) -> &DatJobStatus {
        self.pods = [("fashion-0", uids[0]), ("fashion-1", uids[1])]
            .map(|(name, uid)| with_uid(running(name), uid))
            .into();
        self.report(|report| {
            report.generation = generation;
            change(report);
        })
    }

    fn restarts(&self) -> (u32, u32, u32, u32) {
        let Restarts { total, failures, disruptions, recent_failures } = self.status().restarts;
        (total, failures, disruptions, recent_failures)
    }
}

fn progress(epoch: u32) -> Progress {
    Progress {
        epoch,
        epochs: 9,
        step: 1,
        percent: 0,
        images_per_second: 1.0,
        remaining_seconds: 1,
        loss: 1.0,
        learning_rate: 0.1,
    }
}

#[test]
fn each_world_after_the_first_of_an_attempt_is_a_restart() {
    let mut sim = JobSimulation::training();
    let status = sim.report(|report| {
        report.phase = Phase::Forming;
        report.failure = Some(failure(FailureReason::OutOfMemory));
    });
    assert_eq!((status.state.as_str(), status.restarts.total), ("Restarting", 0));
    assert!(status.waiting_since.is_some());
    // The job stays ready while its world re-forms.
    assert_eq!(sim.condition(READY).0, "True");
    assert_eq!(sim.condition(RECONCILING).0, "False");

    let status = sim.report(|report| {
        report.generation = 2;
        report.failure = Some(failure(FailureReason::OutOfMemory));
    });
    assert_eq!((status.state.as_str(), status.generation, status.restarts.total), ("Running", 2, 1));
    let event = sim.events.pop().unwrap();
    assert_eq!(event.reason, "Restarted");
    assert!(event.note.contains("OutOfMemory on rank 1: what happened."), "{}", event.note);

    // Two worlds between two reconciliations.
    assert_eq!(sim.report(|report| report.generation = 4).restarts.total, 3);
    // A lower generation is not a new world.
    assert_eq!(sim.report(|report| report.generation = 1).restarts.total, 3);
    assert_eq!(sim.status().generation, 4);
}

#[test]
fn replaced_pods_are_disruptions_and_have_no_limit() {
    let mut sim = JobSimulation::new();
    sim.job.spec.lifecycle.max_restarts = 1;
    sim.start(1);
    sim.world(1, ["a", "b"], |_| {});
    sim.events.clear();
    for (generation, uid) in (2..10).zip(["c", "d", "e", "f", "g", "h", "i", "j"]) {
        // The survivors lost their connections.
        let failed = |report: &mut Report| report.failure = Some(failure(FailureReason::Communication));
        assert_eq!(sim.world(generation, ["a", uid], failed).state, "Running");
    }
    assert_eq!(sim.restarts(), (8, 0, 8, 0));
    assert!(
        sim.events[0].note.contains("a pod of the previous world was replaced"),
        "{}",
        sim.events[0].note
    );
    // The same pods again: a worker or an agent failed.
    assert_eq!(sim.world(10, ["a", "j"], |_| {}).state, "Running");
    assert_eq!(sim.restarts(), (9, 1, 8, 1));
    let status = sim.world(11, ["a", "j"], |report| report.failure = Some(failure(FailureReason::Crash)));
    assert_eq!(status.state, "Failed");
    let (value, reason, message) = sim.condition(FAILED);
    assert_eq!((value, reason), ("True", "RestartLimitExceeded"));
    let expected =
        "2 failures without progress exceed lifecycle.maxRestarts (1). Last failure: Rank 1: what happened.";
    assert_eq!(message, expected);
}

/// The trainer forms a new world after one of these failures only if a person can fix it.
#[test]
fn faults_that_a_person_can_fix_have_no_limit() {
    for reason in [FailureReason::Storage, FailureReason::Data, FailureReason::Configuration] {
        let mut sim = JobSimulation::new();
        sim.job.spec.lifecycle.max_restarts = 0;
        sim.start(1);
        sim.world(1, ["a", "b"], |_| {});
        sim.events.clear();
        let failed = |report: &mut Report| report.failure = Some(failure(reason));
        for generation in 2..6 {
            assert_eq!(sim.world(generation, ["a", "b"], failed).state, "Running");
        }
        assert_eq!(sim.restarts(), (4, 0, 4, 0));
        let note = &sim.events[0].note;
        assert!(note.contains(&format!("failed with {reason:?} on rank 1")), "{note}");
    }
}

/// A joiner whose data is missing. The job has trained, and its failure is not the job's.
#[test]
fn a_pod_that_cannot_join_is_in_the_conditions() {
    let mut sim = JobSimulation::training();
    let mut forming = |failure: Failure| {
        let state = sim
            .report(|report| {
                report.phase = Phase::Forming;
                report.pods_joined = 1;
                report.failure = Some(failure);
            })
            .state
            .clone();
        let (_, _, message) = sim.condition(READY);
        (state, message.to_owned())
    };
    let message = "pod 1 cannot join: cannot read /data/x: no such file; it retries every 30 s";
    let expected = format!("The world is forming: 1 of 2 pods joined; {message}.");
    let joiner = Failure::new(FailureReason::Data, message);
    assert_eq!(forming(joiner), ("Restarting".to_owned(), expected));
    let worker = Failure::of_rank(FailureReason::Configuration, 1, "the image has no CUDA.");
    let expected = "The world is forming: 1 of 2 pods joined; rank 1 failed: the image has no CUDA.";
    assert_eq!(forming(worker), ("Restarting".to_owned(), expected.to_owned()));
}

#[test]
fn failures_count_anew_after_an_epoch_or_an_hour() {
    let mut sim = JobSimulation::new();
    sim.job.spec.lifecycle.max_restarts = 1;
    sim.start(1);
    sim.world(1, ["a", "b"], |report| report.progress = Some(progress(3)));
    let same = ["a", "b"];
    sim.world(2, same, |report| report.progress = Some(progress(2)));
    assert_eq!(sim.restarts(), (1, 1, 0, 1));
    // An epoch that had been completed before is not progress.
    sim.world(2, same, |report| report.progress = Some(progress(3)));
    assert_eq!(sim.restarts(), (1, 1, 0, 1));
    sim.world(2, same, |report| report.progress = Some(progress(4)));
    assert_eq!(sim.restarts(), (1, 1, 0, 0));
    sim.world(3, same, |report| report.progress = Some(progress(4)));
    sim.second += 3_600;
    sim.world(3, same, |_| {});
    assert_eq!(sim.restarts(), (2, 2, 0, 0));
    sim.world(4, same, |_| {});
    assert_eq!(sim.status().state, "Running");
    assert_eq!(sim.world(5, same, |_| {}).state, "Failed");
}

#[test]
fn lowering_the_restart_limit_does_not_fail_a_running_world() {
    let mut sim = JobSimulation::training();
    sim.report(|report| report.generation = 3);
    sim.job.spec.lifecycle.max_restarts = 0;
    assert_eq!(sim.report(|_| {}).state, "Running");
}

#[test]
fn waiting_for_capacity_releases_the_pods_and_counts_nothing() {
    let mut sim = JobSimulation::new();
    sim.job.spec.lifecycle.max_restarts = 0;
    sim.start(1);
    for attempt in 1..8 {
        let pods = || vec![running("fashion-0"), unschedulable("fashion-1")];
        sim.observe(pods(), unread(1));
        sim.second += 2_000;
        let status = sim.observe(pods(), ReportState::NoPod);
        assert_eq!((status.attempt, status.restarts.total), (attempt + 1, 0));
        assert_eq!(status.state, "Pending");
        let (ready, reason, message) = sim.condition(READY);
        assert_eq!((ready, reason), ("False", "StartupDeadlineMissed"));
        assert!(
            message.contains("1 of 2 pods are running") && message.contains("\"checkpoints\" not found"),
            "{message}"
        );
        assert!(sim.reasons().contains(&"StartupDeadlineMissed"));
        // Nothing changes while the pods terminate and the job backs off.
        for action in [
            AttemptAction::ScaleDown,
            AttemptAction::AwaitTermination(1),
            AttemptAction::BackOff(Timestamp::UNIX_EPOCH),
        ] {
            sim.second += 3_000;
            let status = sim.apply(&active(action, observation(1, vec![], ReportState::NoPod)));
            assert_eq!(status.attempt, attempt + 1, "{action:?}");
        }
        sim.start(attempt + 1);
    }
    // The first world of the new attempt is not a restart.
    let status = sim.report(|_| {});
    assert_eq!((status.attempt, status.generation, status.restarts.total), (8, 1, 0));
}

#[test]
fn pods_that_run_and_do_not_join_fail_the_job_at_the_restart_limit() {
    let mut sim = JobSimulation::new();
    sim.job.spec.lifecycle.max_restarts = 1;
    let forming = |report: &mut Report| {
        report.phase = Phase::Forming;
        report.generation = 0;
        report.pods_joined = 1;
    };
    for (attempt, state) in [(1, "Pending"), (2, "Failed")] {
        sim.start(attempt);
        sim.report(forming);
        sim.second += 2_000;
        assert_eq!(sim.report(forming).state, state);
    }
    assert_eq!(sim.restarts(), (2, 2, 0, 2));
    let message = sim.condition(FAILED).2;
    assert!(message.contains("startupDeadlineSeconds (1800 s): 1 of 2 pods joined"), "{message}");
}

#[test]
fn only_evidence_that_no_world_forms_misses_the_startup_deadline() {
    let both = || vec![running("fashion-0"), running("fashion-1")];
    for report in [unread(9), ReportState::Pending] {
        let mut sim = JobSimulation::new();
        sim.start(1);
        sim.second += 100_000;
        assert_eq!(sim.observe(both(), report).attempt, 1);
    }
    let mut sim = JobSimulation::new();
    sim.start(1);
    sim.second += 100_000;
    assert_eq!(sim.report(|report| report.phase = Phase::Preparing).attempt, 1);
}

#[test]
fn the_startup_deadline_applies_to_worlds_that_do_not_re_form() {
    let mut sim = JobSimulation::training();
    sim.observe(vec![], ReportState::NoPod);
    sim.second += 2_000;
    assert_eq!(sim.observe(vec![], ReportState::NoPod).attempt, 2);
    // A training world never exceeds the deadline.
    let mut sim = JobSimulation::training();
    sim.second += 100_000;
    assert_eq!(sim.report(|_| {}).attempt, 1);
}

#[test]
fn an_epoch_before_a_failure_does_not_excuse_it() {
    let mut sim = JobSimulation::new();
    sim.job.spec.lifecycle.max_restarts = 0;
    sim.start(1);
    sim.world(1, ["a", "b"], |report| report.progress = Some(progress(3)));
    // Between two reports the first world completes an epoch, fails, and the second one forms.
    let status = sim.world(2, ["a", "b"], |report| report.progress = Some(progress(4)));
    assert_eq!((status.state.as_str(), status.restarts.recent_failures), ("Failed", 1));
}

#[test]
fn an_hour_without_a_world_is_not_progress() {
    let mut sim = JobSimulation::new();
    sim.job.spec.lifecycle.max_restarts = 1;
    sim.start(1);
    let same = ["a", "b"];
    sim.world(1, same, |_| {});
    sim.world(2, same, |report| report.phase = Phase::Forming);
    sim.second += 7_200;
    sim.world(3, same, |_| {});
    assert_eq!((sim.restarts(), sim.status().state.as_str()), ((2, 2, 0, 2), "Failed"));
}
