//! What becomes of a job, told as stories: each step takes the status of the one before.

use datjob_api::{
    contract,
    report::{
        Accuracy, AttackCount, AttackResult, Count, Failure, FailureReason, Phase, Progress, Report, Results,
        Split,
    },
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::{
    conditions::{COMPLETE, FAILED, FINISHED, OVERFITTING, READY, RECONCILING, STALLED},
    controller::{
        observe::{Observation, StatefulSetState},
        validate::InvalidSpec,
    },
    testing::minimal,
};

/// A job and its clock.
struct Story {
    job: DatJob,
    second: i64,
    events: Vec<Event>,
}

impl Story {
    fn new() -> Self {
        Self { job: minimal(), second: 1_000, events: Vec::new() }
    }

    /// A job whose first world trains.
    fn training() -> Self {
        let mut story = Self::new();
        story.start(1);
        story.report(|report| report.phase = Phase::Training);
        story.events.clear();
        story
    }

    fn apply(&mut self, applied: &Applied) -> &DatJobStatus {
        let outcome = status(&self.job, applied, Timestamp::from_second(self.second).unwrap());
        // Level-triggered: looking again at once changes nothing and says nothing.
        let mut again = self.job.clone();
        again.status = Some(outcome.status.clone());
        if let Applied::Active(active) = applied
            && active.action == AttemptAction::Keep
            && !conditions::is_true(&outcome.status, FINISHED)
            && again.status.as_ref().unwrap().attempt == attempt_of(applied)
        {
            let twice = status(&again, applied, Timestamp::from_second(self.second).unwrap());
            assert_eq!(twice.status, outcome.status);
            assert_eq!(twice.events, []);
        }
        self.events.extend(outcome.events);
        self.job.status = Some(outcome.status);
        self.status()
    }

    fn status(&self) -> &DatJobStatus {
        self.job.status.as_ref().unwrap()
    }

    fn start(&mut self, attempt: u32) -> &DatJobStatus {
        self.second += 1;
        self.apply(&active(AttemptAction::Start(attempt), Observation::default()))
    }

    /// The world is looked at, with what the pods say.
    fn look(&mut self, pods: Vec<Pod>, report: ReportState) -> &DatJobStatus {
        self.second += 5;
        let attempt = self.status().attempt;
        self.apply(&active(AttemptAction::Keep, observation(attempt, pods, report)))
    }

    fn report(&mut self, change: impl FnOnce(&mut Report)) -> &DatJobStatus {
        let mut report = Report {
            job_uid: "job".into(),
            pod_uid: "pod".into(),
            attempt: self.status().attempt,
            generation: self.status().generation.max(self.status().generation_at_start + 1),
            phase: Phase::Training,
            world_size: 2,
            pods_joined: 2,
            progress: None,
            timing: None,
            accuracy: None,
            results: None,
            failure: None,
        };
        change(&mut report);
        self.look(vec![running("fashion-0"), running("fashion-1")], ReportState::Received(Box::new(report)))
    }

    fn reasons(&mut self) -> Vec<&'static str> {
        self.events.drain(..).map(|event| event.reason).collect()
    }

    fn condition(&self, kind: &str) -> (&str, &str, &str) {
        let found = conditions::find(self.status(), kind).unwrap();
        (&found.status, &found.reason, &found.message)
    }
}

fn attempt_of(applied: &Applied) -> u32 {
    match applied {
        Applied::Active(active) => active.observation.stateful_set.as_ref().map_or(0, |set| set.attempt),
        _ => 0,
    }
}

fn active(action: AttemptAction, observation: Observation) -> Applied {
    Applied::Active(Box::new(ActiveJob { observation, action, conflict: None }))
}

fn observation(attempt: u32, pods: Vec<Pod>, report: ReportState) -> Observation {
    Observation {
        stateful_set: Some(StatefulSetState {
            uid: "set".into(),
            attempt,
            replicas: 2,
            ready: pods.len() as i32,
        }),
        pods,
        report,
        ..Observation::default()
    }
}

fn running(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{
            "name": contract::CONTAINER, "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "1970-01-01T00:16:42Z"}}
        }]}
    }))
    .unwrap()
}

fn unschedulable(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "lastTransitionTime": "1970-01-01T00:10:00Z", "message": "persistentvolumeclaim \"checkpoints\" not found"
        }]}
    }))
    .unwrap()
}

fn unread(failures: u32) -> ReportState {
    ReportState::Unreadable { pod: "fashion-0".into(), message: "no answer".into(), failures }
}

fn failure(reason: FailureReason) -> Failure {
    Failure { reason, rank: Some(1), message: "what happened.".into(), log_tail: vec![] }
}

fn results() -> Results {
    Results {
        best_epoch: 2,
        averaged: false,
        clean: Count { correct: 8127, total: 10_000 },
        attacks: vec![AttackResult {
            attack: "pgd-20".into(),
            correct: 4980,
            total: 10_000,
            stages: vec![],
            warnings: vec![],
        }],
        worst_case: Count { correct: 4980, total: 10_000 },
        sweep: vec![],
        certified: vec![],
        by_class: None,
        weights: "w".into(),
        sha256: "s".into(),
        seed: 0,
        training_hash: "h".into(),
        trainer_version: "0.1.0".into(),
        libtorch_version: "2.11.0".into(),
        world_size: 2,
        threads: 1,
    }
}

#[test]
fn a_job_goes_from_pending_to_complete() {
    let mut story = Story::new();
    let status = story.start(1);
    assert_eq!((status.state.as_str(), status.attempt, status.generation), ("Pending", 1, 0));
    assert_eq!((status.workers.as_str(), status.epoch.as_str()), ("0/2", "0/2"));
    assert_eq!(story.condition(READY).0, "False");
    assert_eq!(story.condition(RECONCILING).0, "True");

    let status = story.look(vec![], ReportState::NoPod);
    assert_eq!(status.state, "Pending");
    assert!(status.start_time.is_none() && status.waiting_since.is_some());

    let status = story.report(|report| {
        report.phase = Phase::Forming;
        report.generation = 0;
        report.pods_joined = 1;
    });
    assert_eq!(status.state, "Starting");
    assert_eq!(status.start_time.as_ref().unwrap().0.as_second(), 1_002);
    assert!(story.condition(READY).2.contains("1 of 2 pods joined"));

    let status = story.report(|report| {
        report.progress = Some(Progress {
            epoch: 1,
            epochs: 2,
            step: 10,
            percent: 50,
            images_per_second: 1.0,
            remaining_seconds: 1,
            loss: 1.0,
            learning_rate: 0.1,
        });
        report.accuracy = Some(Accuracy {
            epoch: 1,
            split: Split::Validation,
            clean: Count { correct: 813, total: 1000 },
            robust: AttackCount::new("pgd-10", Count { correct: 498, total: 1000 }),
            averaging: None,
            single_step: None,
            overfitting: None,
        });
    });
    assert_eq!((status.state.as_str(), status.generation, status.restarts.total), ("Running", 1, 0));
    assert_eq!(
        (status.epoch.as_str(), status.clean.as_str(), status.robust.as_str()),
        ("1/2", "81.30", "49.80")
    );
    assert_eq!((status.workers.as_str(), &status.waiting_since), ("2/2", &None));
    assert_eq!(story.condition(READY), ("True", "Training", "World 1 is training (world size 2)."));
    assert_eq!(story.condition(RECONCILING).0, "False");

    assert_eq!(story.report(|report| report.phase = Phase::Evaluating).state, "Evaluating");
    let status = story.report(|report| {
        report.phase = Phase::Succeeded;
        report.results = Some(results());
    });
    assert_eq!(
        (status.state.as_str(), status.clean.as_str(), status.robust.as_str()),
        ("Complete", "81.27", "49.80")
    );
    assert_eq!(status.results.as_ref().unwrap().worst_case.percent, "49.80");
    assert_eq!(status.workers, "0/2");
    assert!(status.completion_time.is_some());
    for (kind, value) in
        [(READY, "True"), (FINISHED, "True"), (COMPLETE, "True"), (FAILED, "False"), (STALLED, "False")]
    {
        assert_eq!(story.condition(kind).0, value, "{kind}");
    }
    assert_eq!(story.reasons(), ["Created", "WorldFormed", "Evaluated", "Evaluating", "Completed"]);
}

#[test]
fn catastrophic_overfitting_is_a_condition_and_an_event() {
    let mut story = Story::training();
    let sentence = "Epoch 3: catastrophic overfitting to the single-step attack";
    for (epoch, overfitting, value) in
        [(2, None, None), (3, Some(sentence), Some("True")), (4, None, Some("False"))]
    {
        story.report(|report| {
            report.accuracy = Some(Accuracy {
                epoch,
                split: Split::Validation,
                clean: Count { correct: 8, total: 10 },
                robust: AttackCount::new("pgd-10", Count { correct: 1, total: 10 }),
                averaging: None,
                single_step: Some(Count { correct: 9, total: 10 }),
                overfitting: overfitting.map(str::to_owned),
            });
        });
        let found = conditions::find(story.status(), OVERFITTING).map(|one| one.status.clone());
        assert_eq!(found.as_deref(), value, "epoch {epoch}");
    }
    assert_eq!(story.reasons().iter().filter(|reason| **reason == "CatastrophicOverfitting").count(), 1);
}

#[test]
fn a_job_that_misses_its_target_fails_and_keeps_its_results() {
    for (accuracy, state) in [(49.8, "Complete"), (49.81, "Failed")] {
        let mut story = Story::training();
        let target = serde_json::json!({"attack": "pgd-20", "accuracy": accuracy});
        story.job.spec.training.evaluation.target = serde_json::from_value(target).unwrap();
        let status = story.report(|report| {
            report.phase = Phase::Succeeded;
            report.results = Some(results());
        });
        assert_eq!((status.state.as_str(), status.robust.as_str()), (state, "49.80"));
        assert_eq!(status.results.as_ref().unwrap().sha256, "s");
        if state == "Failed" {
            let (value, reason, sentence) = story.condition(FAILED);
            assert_eq!((value, reason), ("True", "TargetMissed"));
            assert!(
                sentence.starts_with("Robust accuracy under pgd-20 is 49.80 % (4980 of 10000"),
                "{sentence}"
            );
            assert_eq!(story.condition(COMPLETE).0, "False");
        }
    }
}

#[test]
fn the_end_is_latched_and_only_the_generation_follows() {
    let mut story = Story::training();
    story.report(|report| {
        report.phase = Phase::Succeeded;
        report.results = Some(results());
    });
    let before = story.status().clone();
    story.job.metadata.generation = Some(7);
    story.job.spec.lifecycle.active_deadline_seconds = Some(1);
    story.second += 1_000_000;
    let outcome = status(&story.job, &Applied::Finished, Timestamp::from_second(story.second).unwrap());
    assert_eq!((outcome.status.observed_generation, outcome.requeue), (7, None));
    assert!(outcome.status.conditions.iter().all(|one| one.observed_generation == Some(7)));
    assert!(outcome.events.is_empty());
    assert_eq!((&outcome.status.state, &outcome.status.results), (&before.state, &before.results));
}

#[test]
fn each_world_after_the_first_of_an_attempt_is_a_restart() {
    let mut story = Story::training();
    let status = story.report(|report| {
        report.phase = Phase::Forming;
        report.failure = Some(failure(FailureReason::OutOfMemory));
    });
    assert_eq!((status.state.as_str(), status.restarts.total), ("Restarting", 0));
    assert!(status.waiting_since.is_some());
    // The job stays ready while its world re-forms.
    assert_eq!(story.condition(READY).0, "True");
    assert_eq!(story.condition(RECONCILING).0, "False");

    let status = story.report(|report| {
        report.generation = 2;
        report.failure = Some(failure(FailureReason::OutOfMemory));
    });
    assert_eq!((status.state.as_str(), status.generation, status.restarts.total), ("Running", 2, 1));
    let event = story.events.pop().unwrap();
    assert_eq!(event.reason, "Restarted");
    assert!(event.note.contains("OutOfMemory on rank 1: what happened."), "{}", event.note);

    // Two at once, between two looks.
    assert_eq!(story.report(|report| report.generation = 4).restarts.total, 3);
    // A pod that has forgotten is no new world.
    assert_eq!(story.report(|report| report.generation = 1).restarts.total, 3);
    assert_eq!(story.status().generation, 4);
}

#[test]
fn too_many_restarts_end_the_job_with_the_last_failure() {
    let mut story = Story::training();
    story.job.spec.lifecycle.max_restarts = 1;
    assert_eq!(story.report(|report| report.generation = 2).state, "Running");
    let status = story.report(|report| {
        report.generation = 3;
        report.failure = Some(failure(FailureReason::Communication));
    });
    assert_eq!(status.state, "Failed");
    let (value, reason, message) = story.condition(FAILED);
    assert_eq!((value, reason), ("True", "RestartLimitExceeded"));
    assert!(
        message.contains("Restart 2") && message.contains("(1)") && message.contains("what happened"),
        "{message}"
    );
}

#[test]
fn a_lower_limit_does_not_end_a_world_that_trains() {
    let mut story = Story::training();
    story.report(|report| report.generation = 3);
    story.job.spec.lifecycle.max_restarts = 0;
    assert_eq!(story.report(|_| {}).state, "Running");
}

#[test]
fn a_missed_startup_deadline_gives_the_pods_back_and_counts_once() {
    let mut story = Story::new();
    story.start(1);
    story.look(vec![running("fashion-0"), unschedulable("fashion-1")], unread(1));
    story.second += 2_000;
    let pods = vec![running("fashion-0"), unschedulable("fashion-1")];
    let status = story.look(pods, ReportState::NoPod);
    assert_eq!((status.attempt, status.restarts.total, status.state.as_str()), (2, 1, "Pending"));
    let (ready, reason, message) = story.condition(READY);
    assert_eq!((ready, reason), ("False", "StartupDeadlineMissed"));
    assert!(
        message.contains("1 of 2 pods are running") && message.contains("\"checkpoints\" not found"),
        "{message}"
    );
    assert!(story.reasons().contains(&"StartupDeadlineMissed"));

    // While the pods go and the job waits for its turn, nothing is counted again.
    for action in [
        AttemptAction::ScaleDown,
        AttemptAction::AwaitTermination(1),
        AttemptAction::BackOff(Timestamp::UNIX_EPOCH),
    ] {
        story.second += 3_000;
        let status = story.apply(&active(action, observation(1, vec![], ReportState::NoPod)));
        assert_eq!((status.attempt, status.restarts.total), (2, 1), "{action:?}");
    }
    // The first world of the new attempt counts none.
    story.start(2);
    let status = story.report(|_| {});
    assert_eq!((status.attempt, status.generation, status.restarts.total), (2, 1, 1));
    assert_eq!(story.report(|report| report.generation = 2).restarts.total, 2);
}

#[test]
fn startup_deadlines_end_the_job_when_its_restarts_are_used_up() {
    let mut story = Story::new();
    story.job.spec.lifecycle.max_restarts = 0;
    story.start(1);
    story.second += 2_000;
    let status = story.look(vec![unschedulable("fashion-0")], ReportState::NoPod);
    assert_eq!((status.state.as_str(), status.attempt), ("Failed", 1));
    let message = story.condition(FAILED).2;
    assert!(message.contains("startupDeadlineSeconds") && message.contains("unschedulable"), "{message}");
}

#[test]
fn the_startup_deadline_is_for_worlds_that_do_not_form_again_too() {
    let mut story = Story::training();
    story.look(vec![], ReportState::NoPod);
    story.second += 2_000;
    assert_eq!(story.look(vec![], ReportState::NoPod).attempt, 2);
    // A world that trains is never late.
    let mut story = Story::training();
    story.second += 100_000;
    assert_eq!(story.report(|_| {}).attempt, 1);
}

#[test]
fn a_report_that_cannot_be_read_changes_nothing() {
    let mut story = Story::training();
    let before = story.status().clone();
    let pods = || vec![running("fashion-0"), running("fashion-1")];
    assert_eq!(story.look(pods(), unread(1)), &before);
    assert_eq!(story.look(pods(), unread(5)), &before);
    assert!(story.events.is_empty());

    // After a while a person is told, and told that it is over.
    story.look(pods(), unread(6));
    assert_eq!(
        story.condition(STALLED),
        ("True", "ReportUnreadable", "Cannot read the report of pod fashion-0: no answer.")
    );
    assert_eq!(story.status().state, "Running");
    story.report(|_| {});
    assert_eq!((story.condition(STALLED).0, story.condition(READY).0), ("False", "True"));
    assert_eq!(story.reasons(), ["Blocked"]);
}

#[test]
fn blockers_are_told_once_and_cleared() {
    let mut story = Story::new();
    story.start(1);
    story.events.clear();
    story.look(vec![unschedulable("fashion-0")], ReportState::NoPod);
    story.look(vec![unschedulable("fashion-0")], ReportState::NoPod);
    assert_eq!(story.condition(STALLED).0, "True");
    let (ready, reason, message) = story.condition(READY);
    assert_eq!((ready, reason), ("False", "Unschedulable"));
    assert_eq!(message, "Pod fashion-0 is unschedulable: persistentvolumeclaim \"checkpoints\" not found.");
    assert_eq!(story.reasons(), ["Blocked"]);
    story.look(vec![running("fashion-0")], ReportState::NoPod);
    assert_eq!((story.condition(STALLED).0, story.condition(RECONCILING).0), ("False", "True"));
}

#[test]
fn what_stands_in_the_way_of_a_child_is_said() {
    let mut story = Story::new();
    let conflict = ApplyConflict::Foreign { object: "Service fashion".into() };
    let applied = Applied::Active(Box::new(ActiveJob {
        observation: Observation::default(),
        action: AttemptAction::Start(1),
        conflict: Some(conflict),
    }));
    let status = story.apply(&applied);
    // Nothing was started.
    assert_eq!((status.attempt, &status.waiting_since), (0, &None));
    assert_eq!((story.condition(STALLED).0, story.condition(STALLED).1), ("True", "NameTaken"));
    assert!(story.condition(STALLED).2.starts_with("Service fashion already exists"));
    assert_eq!(story.reasons(), ["Blocked"]);
}

#[test]
fn final_failures_end_the_job_with_their_sentence() {
    for (reason, word) in [
        (FailureReason::Configuration, "ConfigurationFailure"),
        (FailureReason::Data, "DataFailure"),
        (FailureReason::Numerical, "NumericalFailure"),
        (FailureReason::Crash, "Crash"),
    ] {
        let mut story = Story::training();
        let status = story.report(|report| {
            report.phase = Phase::Failed;
            report.failure = Some(failure(reason));
        });
        assert_eq!((status.state.as_str(), status.failure.as_ref().unwrap().reason), ("Failed", reason));
        assert_eq!(story.condition(FAILED), ("True", word, "Rank 1: what happened."));
        assert_eq!((story.condition(STALLED).0, story.condition(FINISHED).0), ("True", "True"));
        assert_eq!((story.condition(READY).0, story.condition(COMPLETE).0), ("False", "False"));
        assert_eq!(story.reasons(), ["Failed"]);
    }
}

#[test]
fn the_active_deadline_counts_from_the_first_pod() {
    let mut story = Story::new();
    story.job.spec.lifecycle.active_deadline_seconds = Some(60);
    story.start(1);
    story.second += 1_000;
    // No pod ran yet.
    assert_eq!(story.look(vec![unschedulable("fashion-0")], ReportState::NoPod).state, "Pending");
    assert_eq!(story.report(|_| {}).state, "Failed");
    assert_eq!(story.condition(FAILED).1, "DeadlineExceeded");
}

#[test]
fn a_spec_that_cannot_be_run_is_final_and_named() {
    let mut story = Story::new();
    let invalid = InvalidSpec::new("spec.pod.resources", "cannot request nvidia.com/gpu");
    let status = story.apply(&Applied::Rejected(invalid));
    assert_eq!((status.state.as_str(), status.attempt), ("Failed", 0));
    let (_, reason, message) = story.condition(FAILED);
    assert_eq!(reason, "InvalidSpec");
    assert!(message.starts_with("spec.pod.resources: cannot request nvidia.com/gpu"), "{message}");
    assert_eq!(story.reasons(), ["Failed"]);
}

#[test]
fn an_attempt_that_another_operator_started_is_taken_up() {
    let mut story = Story::new();
    let status = story.apply(&active(AttemptAction::Keep, observation(1, vec![], ReportState::NoPod)));
    assert_eq!((status.attempt, status.waiting_since.is_some()), (1, true));
}

#[test]
fn only_a_better_robust_accuracy_is_an_event() {
    let mut story = Story::training();
    let mut evaluate = |epoch: u32, correct: u64| {
        story.report(|report| {
            report.accuracy = Some(Accuracy {
                epoch,
                split: Split::Validation,
                clean: Count { correct: 9, total: 10 },
                robust: AttackCount::new("pgd-10", Count { correct, total: 10 }),
                averaging: None,
                single_step: None,
                overfitting: None,
            });
        });
    };
    evaluate(1, 5);
    evaluate(2, 4);
    evaluate(3, 6);
    assert_eq!(story.status().best.as_ref().unwrap().epoch, 3);
    let notes: Vec<_> = story.events.iter().map(|event| (event.reason, event.key.as_str())).collect();
    assert_eq!(notes, [("Evaluated", "epoch 1"), ("Evaluated", "epoch 3")]);
}

#[test]
fn what_a_tenant_says_is_bounded() {
    let mut story = Story::training();
    let status = story.report(|report| {
        report.failure = Some(Failure {
            message: "x".repeat(60_000),
            log_tail: vec!["y".repeat(1_000); 200],
            ..failure(FailureReason::Crash)
        });
        report.generation = u32::MAX;
    });
    let failure = status.failure.as_ref().unwrap();
    assert!(failure.message.len() <= 4096 && failure.log_tail.len() == 50);
    assert_eq!(status.state, "Failed");
    assert!(story.condition(FAILED).2.len() <= 4096);
}
