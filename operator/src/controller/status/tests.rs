//! Sequences of reconciliations of a job; each one starts from the status of the previous one.

use std::sync::Arc;

use datjob_api::{
    contract,
    datjob::Restarts,
    report::{
        Accuracy, AttackCount, AttackResult, Count, EvaluationPart, EvaluationProgress, Failure,
        FailureReason, Phase, Progress, Report, Results, Split,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::*;
use crate::{
    conditions::{COMPLETE, FAILED, FINISHED, OVERFITTING, READY, RECONCILING, STALLED},
    controller::{
        observe::Observation,
        ownership::Owner,
        validate::InvalidSpec,
        watch::{Pod, StatefulSetState},
    },
    testing::minimal,
};

mod deadlines;
mod evaluations;
mod finished;
mod preparation;
mod requeue;
mod restarts;
mod storage;

/// A job and its clock.
struct JobSimulation {
    job: DatJob,
    /// The pods that [`Self::report`] observes.
    pods: Vec<Pod>,
    second: i64,
    events: Vec<Event>,
}

impl JobSimulation {
    fn new() -> Self {
        let pods = vec![running("fashion-0"), running("fashion-1")];
        Self { job: minimal(), pods, second: 1_000, events: Vec::new() }
    }

    /// A job whose first world is training.
    fn training() -> Self {
        let mut sim = Self::new();
        sim.start(1);
        sim.report(|report| report.phase = Phase::Training);
        sim.events.clear();
        sim
    }

    fn apply(&mut self, applied: &Applied) -> &DatJobStatus {
        let outcome = status(&self.job, applied, Timestamp::from_second(self.second).unwrap());
        // Level-triggered: the same observation again changes nothing and emits no event.
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

    /// Reconciles the running attempt with these pods and this report.
    fn observe(&mut self, pods: Vec<Pod>, report: ReportState) -> &DatJobStatus {
        self.second += 5;
        let attempt = self.status().attempt;
        self.apply(&active(AttemptAction::Keep, observation(attempt, pods, report)))
    }

    fn report(&mut self, change: impl FnOnce(&mut Report)) -> &DatJobStatus {
        let mut report = self.default_report();
        change(&mut report);
        self.observe(self.pods.clone(), ReportState::Received(Arc::new(report)))
    }

    /// The report of a training world.
    fn default_report(&self) -> Report {
        Report {
            job_uid: "job".into(),
            pod_uid: "pod".into(),
            attempt: self.status().attempt,
            generation: self.status().generation.max(self.status().generation_at_start + 1),
            phase: Phase::Training,
            world_size: 2,
            pods_joined: 2,
            preparation: None,
            preparation_idle_seconds: None,
            progress: None,
            timing: None,
            evaluation: None,
            accuracy: None,
            best: None,
            overfitting: None,
            warnings: vec![],
            storage: None,
            results: None,
            failure: None,
        }
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
        stateful_set: Some(Arc::new(StatefulSetState {
            owner: Owner::of(&ObjectMeta::default()),
            uid: "set".into(),
            attempt,
            replicas: 2,
            created: Some(pods.len() as i32),
            ready: pods.len() as i32,
        })),
        pods: pods.into_iter().map(Arc::new).collect(),
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
    Failure::of_rank(reason, 1, "what happened.")
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
        devices: vec!["A CPU".into()],
    }
}

#[test]
fn a_job_runs_from_pending_to_complete() {
    let mut sim = JobSimulation::new();
    let status = sim.start(1);
    assert_eq!((status.state.as_str(), status.attempt, status.generation), ("Pending", 1, 0));
    assert_eq!((status.workers.as_str(), status.epoch.as_str()), ("0/2", "0/2"));
    assert_eq!(sim.condition(READY).0, "False");
    assert_eq!(sim.condition(RECONCILING).0, "True");

    let status = sim.observe(vec![], ReportState::NoPod);
    assert_eq!(status.state, "Pending");
    assert!(status.start_time.is_none() && status.waiting_since.is_some());

    let status = sim.report(|report| {
        report.phase = Phase::Forming;
        report.generation = 0;
        report.pods_joined = 1;
    });
    assert_eq!(status.state, "Starting");
    assert_eq!(status.start_time.as_ref().unwrap().0.as_second(), 1_011);
    assert!(sim.condition(READY).2.contains("1 of 2 pods joined"));

    let status = sim.report(|report| {
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
        (status.epoch.as_str(), status.clean.as_str(), status.robust.as_str(), status.split),
        ("1/2", "81.30", "49.80", Some(Split::Validation))
    );
    assert_eq!((status.workers.as_str(), &status.waiting_since), ("2/2", &None));
    assert_eq!(sim.condition(READY), ("True", "Training", "World 1 is training (world size 2)."));
    assert_eq!(sim.condition(RECONCILING).0, "False");

    assert_eq!(sim.report(|report| report.phase = Phase::Evaluating).state, "Evaluating");
    let status = sim.report(|report| {
        report.phase = Phase::Succeeded;
        report.results = Some(results());
    });
    assert_eq!(
        (status.state.as_str(), status.clean.as_str(), status.robust.as_str(), status.split),
        ("Complete", "81.27", "49.80", Some(Split::Test))
    );
    assert_eq!(status.results.as_ref().unwrap().worst_case.percent, "49.80");
    assert_eq!((status.workers.as_str(), status.epoch.as_str()), ("0/2", "2/2"));
    assert!(status.completion_time.is_some());
    for (kind, value) in
        [(READY, "True"), (FINISHED, "True"), (COMPLETE, "True"), (FAILED, "False"), (STALLED, "False")]
    {
        assert_eq!(sim.condition(kind).0, value, "{kind}");
    }
    assert_eq!(sim.reasons(), ["Created", "WorldFormed", "Evaluated", "Evaluating", "Completed"]);
}

#[test]
fn warnings_are_kept_and_each_has_one_event() {
    let mut sim = JobSimulation::training();
    let warn = |report: &mut Report| report.warnings = vec!["first".into(), "second".into()];
    assert_eq!(sim.report(warn).warnings, ["first.", "second."]);
    assert_eq!(sim.report(warn).warnings, ["first.", "second."]);
    // An agent that restarted has only some of them.
    let status = sim.report(|report| report.warnings = vec!["second".into(), "third ".repeat(1000)]);
    assert_eq!(status.warnings.len(), 3);
    assert!(status.warnings[2].len() < 600);
    let many = sim.report(|report| report.warnings = (0..100).map(|number| number.to_string()).collect());
    assert_eq!(many.warnings.len(), 16);
    assert_eq!(sim.reasons().iter().filter(|reason| **reason == "TrainingWarning").count(), 16);
}

#[test]
fn a_missed_target_fails_the_job_and_keeps_its_results() {
    for (accuracy, state) in [(49.8, "Complete"), (49.81, "Failed")] {
        let mut sim = JobSimulation::training();
        let target = serde_json::json!({"attack": "pgd-20", "accuracy": accuracy});
        sim.job.spec.training.evaluation.target = serde_json::from_value(target).unwrap();
        let status = sim.report(|report| {
            report.phase = Phase::Succeeded;
            report.results = Some(results());
        });
        assert_eq!((status.state.as_str(), status.robust.as_str()), (state, "49.80"));
        assert_eq!(status.results.as_ref().unwrap().sha256, "s");
        if state == "Failed" {
            let (value, reason, sentence) = sim.condition(FAILED);
            assert_eq!((value, reason), ("True", "TargetMissed"));
            assert!(
                sentence.starts_with("Robust accuracy under pgd-20 is 49.80 % (4980 of 10000"),
                "{sentence}"
            );
            assert_eq!(sim.condition(COMPLETE).0, "False");
        }
    }
}

#[test]
fn only_the_observed_generation_of_a_finished_job_changes() {
    let mut sim = JobSimulation::training();
    sim.report(|report| {
        report.phase = Phase::Succeeded;
        report.results = Some(results());
    });
    let before = sim.status().clone();
    sim.job.metadata.generation = Some(7);
    sim.job.spec.lifecycle.active_deadline_seconds = Some(1);
    sim.second += 1_000_000;
    let outcome = status(&sim.job, &Applied::Finished, Timestamp::from_second(sim.second).unwrap());
    assert_eq!((outcome.status.observed_generation, outcome.requeue), (7, None));
    assert!(outcome.status.conditions.iter().all(|one| one.observed_generation == Some(7)));
    assert!(outcome.events.is_empty());
    assert_eq!((&outcome.status.state, &outcome.status.results), (&before.state, &before.results));
}

#[test]
fn an_unreadable_report_keeps_the_status_until_the_job_is_stalled() {
    let mut sim = JobSimulation::training();
    let before = sim.status().clone();
    let pods = || vec![running("fashion-0"), running("fashion-1")];
    assert_eq!(sim.observe(pods(), unread(1)), &before);
    assert_eq!(sim.observe(pods(), unread(3)), &before);
    assert!(sim.events.is_empty());

    // After several failures the job is stalled, until the report can be read again.
    sim.observe(pods(), unread(4));
    assert_eq!(
        sim.condition(STALLED),
        ("True", "ReportUnreadable", "Cannot read the report of pod fashion-0: no answer.")
    );
    assert_eq!(sim.status().state, "Running");
    sim.report(|_| {});
    assert_eq!((sim.condition(STALLED).0, sim.condition(READY).0), ("False", "True"));
    assert_eq!(sim.reasons(), ["Blocked"]);
}

#[test]
fn a_blocker_emits_one_event_and_is_cleared() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    sim.events.clear();
    sim.observe(vec![unschedulable("fashion-0")], ReportState::NoPod);
    sim.observe(vec![unschedulable("fashion-0")], ReportState::NoPod);
    assert_eq!(sim.condition(STALLED).0, "True");
    let (ready, reason, message) = sim.condition(READY);
    assert_eq!((ready, reason), ("False", "VolumeClaimMissing"));
    assert_eq!(message, "Pod fashion-0 is unschedulable: persistentvolumeclaim \"checkpoints\" not found.");
    assert_eq!(sim.reasons(), ["Blocked"]);
    sim.observe(vec![running("fashion-0")], ReportState::NoPod);
    assert_eq!((sim.condition(STALLED).0, sim.condition(RECONCILING).0), ("False", "True"));
}

#[test]
fn a_lack_of_capacity_does_not_stall_the_job() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    sim.events.clear();
    let mut pod = unschedulable("fashion-0");
    let conditions = &mut pod.status.conditions;
    conditions[0].message = Some("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.".into());
    sim.observe(vec![pod.clone()], ReportState::NoPod);
    sim.observe(vec![pod], ReportState::NoPod);
    assert_eq!((sim.condition(STALLED).0, sim.condition(STALLED).1), ("False", "WaitingForCapacity"));
    let expected = "Pod fashion-0 is unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    assert_eq!(sim.condition(RECONCILING), ("True", "WaitingForCapacity", expected));
    assert_eq!(sim.condition(READY), ("False", "WaitingForCapacity", expected));
    assert!(!sim.events[0].warning);
    assert_eq!(sim.reasons(), ["Blocked"]);
}

#[test]
fn a_pod_that_does_not_terminate_is_named() {
    let mut sim = JobSimulation::training();
    let mut pod = running("fashion-1");
    pod.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(sim.second).unwrap()));
    pod.spec.node_name = Some("node-7".into());
    let wait = |sim: &mut JobSimulation, pod: &Pod| {
        let found = observation(1, vec![pod.clone()], ReportState::NoPod);
        sim.apply(&active(AttemptAction::AwaitTermination(1), found));
        sim.condition(READY).2.to_owned()
    };
    assert_eq!(
        wait(&mut sim, &pod),
        "Waiting for old pods to terminate: 1 left (first: fashion-1 on node node-7)."
    );
    assert_eq!(sim.condition(STALLED).0, "False");
    sim.second += 60;
    assert!(wait(&mut sim, &pod).starts_with("Pod fashion-1 on node node-7 should have terminated at 1970-"));
    assert_eq!((sim.condition(STALLED).0, sim.condition(STALLED).1), ("True", "PodNotTerminated"));
}

#[test]
fn a_conflict_stalls_the_job() {
    let mut sim = JobSimulation::new();
    let conflict = ApplyConflict::Foreign { object: "Service fashion".into() };
    let applied = Applied::Active(Box::new(ActiveJob {
        observation: Observation::default(),
        action: AttemptAction::Start(1),
        conflict: Some(conflict),
    }));
    let status = sim.apply(&applied);
    // The attempt did not start.
    assert_eq!((status.attempt, &status.waiting_since), (0, &None));
    assert_eq!((sim.condition(STALLED).0, sim.condition(STALLED).1), ("True", "NameTaken"));
    assert!(sim.condition(STALLED).2.starts_with("Service fashion already exists"));
    assert_eq!(sim.reasons(), ["Blocked"]);
}

#[test]
fn final_failures_fail_the_job_with_their_message() {
    for (reason, expected) in [
        (FailureReason::Configuration, "ConfigurationFailure"),
        (FailureReason::Data, "DataFailure"),
        (FailureReason::Numerical, "NumericalFailure"),
        (FailureReason::Crash, "Crash"),
    ] {
        let mut sim = JobSimulation::training();
        let status = sim.report(|report| {
            report.phase = Phase::Failed;
            report.failure = Some(failure(reason));
        });
        assert_eq!((status.state.as_str(), status.failure.as_ref().unwrap().reason), ("Failed", reason));
        assert_eq!(sim.condition(FAILED), ("True", expected, "Rank 1: what happened."));
        assert_eq!((sim.condition(STALLED).0, sim.condition(FINISHED).0), ("True", "True"));
        assert_eq!((sim.condition(READY).0, sim.condition(COMPLETE).0), ("False", "False"));
        assert_eq!(sim.reasons(), ["Failed"]);
    }
}

#[test]
fn an_invalid_spec_fails_the_job() {
    let mut sim = JobSimulation::new();
    let invalid = InvalidSpec::new("spec.pod.resources", "cannot request nvidia.com/gpu");
    let status = sim.apply(&Applied::Rejected(invalid));
    assert_eq!((status.state.as_str(), status.attempt), ("Failed", 0));
    let (_, reason, message) = sim.condition(FAILED);
    assert_eq!(reason, "InvalidSpec");
    assert!(message.starts_with("spec.pod.resources: cannot request nvidia.com/gpu"), "{message}");
    assert_eq!(sim.reasons(), ["Failed"]);
}

#[test]
fn adopts_an_attempt_that_another_operator_started() {
    let mut sim = JobSimulation::new();
    let status = sim.apply(&active(AttemptAction::Keep, observation(1, vec![], ReportState::NoPod)));
    assert_eq!((status.attempt, status.waiting_since.is_some()), (1, true));
}

#[test]
fn truncates_texts_of_reports() {
    let mut sim = JobSimulation::training();
    let status = sim.report(|report| {
        report.failure = Some(Failure {
            message: "x".repeat(60_000),
            log_tail: vec!["y".repeat(1_000); 200],
            log_file: Some("z".repeat(1_000)),
            ..failure(FailureReason::Crash)
        });
        report.generation = u32::MAX;
    });
    let failure = status.failure.as_ref().unwrap();
    assert!(failure.message.len() <= 4096 && failure.log_tail.len() == 50);
    assert!(failure.log_file.as_ref().is_some_and(|path| path.starts_with('z') && path.len() <= 512));
    assert_eq!(status.state, "Failed");
    assert!(sim.condition(FAILED).2.len() <= 4096);
}
