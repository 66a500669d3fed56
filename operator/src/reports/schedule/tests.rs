use datjob_api::report::{
    EvaluationPart, EvaluationProgress, Phase, Preparation, PreparationState, PreparationStep, Progress,
};

use super::*;

fn job(namespace: &str, name: &str) -> Identity {
    Identity { name: name.into(), namespace: namespace.into(), uid: format!("{namespace}/{name}") }
}

fn target(pod_uid: &str) -> Target {
    Target {
        pod: "job-0".into(),
        pod_uid: pod_uid.into(),
        address: [10, 0, 0, 1].into(),
        attempt: 1,
        ready: true,
        pods_hash: 0,
    }
}

fn report(step: u64, remaining_seconds: u64) -> Report {
    Report {
        job_uid: "job".into(),
        pod_uid: "pod".into(),
        attempt: 1,
        generation: 1,
        phase: Phase::Training,
        world_size: 1,
        pods_joined: 1,
        preparation: None,
        preparation_idle_seconds: None,
        progress: Some(Progress {
            epoch: 0,
            epochs: 9,
            step,
            percent: 0,
            images_per_second: 1.0,
            remaining_seconds,
            loss: 1.0,
            learning_rate: 0.1,
        }),
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

/// Reads the only due job; returns the seconds until the next read.
fn read(schedule: &mut Schedule, result: Result<Report, String>, now: Instant) -> (bool, u64) {
    let (job, target) = schedule.take_due(now).unwrap();
    let changed = schedule.finish(&job, &target, result, now);
    (changed, schedule.next_due().unwrap().duration_since(now).as_secs())
}

#[test]
fn a_job_is_read_rarely_while_only_its_progress_changes() {
    let (mut schedule, start) = (Schedule::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    schedule.set_target(&job("a", "x"), target("pod"), start);
    assert_eq!(read(&mut schedule, Ok(report(1, 9_999)), at(0)), (true, 5));
    assert!(schedule.take_due(at(4)).is_none());
    assert_eq!(read(&mut schedule, Ok(report(2, 9_999)), at(60)), (true, 10));
    assert_eq!(read(&mut schedule, Ok(report(2, 9_999)), at(600)), (false, 30));
    assert_eq!(read(&mut schedule, Ok(report(3, 24)), at(700)), (true, 12), "the end is near");
    let evaluating = Report { phase: Phase::Evaluating, ..report(3, 0) };
    assert_eq!(read(&mut schedule, Ok(evaluating.clone()), at(800)), (true, 5));
    let with = |images, remaining_seconds| {
        let evaluation = EvaluationProgress {
            part: EvaluationPart::Test,
            attack: "pgd-20".into(),
            iteration: 1,
            iterations: 20,
            images,
            robust: Some(0),
            total: 9,
            remaining_seconds,
        };
        Report { evaluation: Some(evaluation), ..evaluating.clone() }
    };
    assert_eq!(read(&mut schedule, Ok(with(0, None)), at(1_000)), (true, 30), "progress of an evaluation");
    assert_eq!(read(&mut schedule, Ok(with(7, Some(24))), at(1_100)), (true, 12), "its end is near");
    assert_eq!((schedule.jobs(), schedule.oldest(at(1_103))), (1, Duration::from_secs(3)));
}

#[test]
fn a_job_is_read_rarely_while_its_pods_only_download() {
    let (mut schedule, start) = (Schedule::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    schedule.set_target(&job("a", "x"), target("pod"), start);
    let downloading = |done, error: Option<&str>| {
        let (step, error) = (PreparationStep::Downloading, error.map(str::to_owned));
        let state = PreparationState { step, done, total: None, error };
        Report {
            phase: Phase::Preparing,
            progress: None,
            preparation: Some(Preparation { pods: 1, pod: 0, state }),
            preparation_idle_seconds: Some(done as u32),
            ..report(0, 0)
        }
    };
    assert_eq!(read(&mut schedule, Ok(downloading(1, None)), at(0)), (true, 5));
    assert_eq!(read(&mut schedule, Ok(downloading(2, None)), at(60)), (true, 10));
    assert_eq!(read(&mut schedule, Ok(downloading(3, Some("refused"))), at(120)), (true, 5));
}

#[test]
fn a_silent_pod_is_read_more_and_more_rarely() {
    let (mut schedule, start) = (Schedule::default(), Instant::now());
    let job = job("a", "x");
    schedule.set_target(&job, Target { ready: false, ..target("pod") }, start);
    let failures = |schedule: &Schedule| match schedule.state(&job) {
        ReportState::Unreadable { failures, .. } => failures,
        other => panic!("{other:?}"),
    };
    let mut now = start;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let (_, pause) = read(&mut schedule, Err("refused".into()), now);
        pauses.push(pause);
        now += Duration::from_secs(pause);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(failures(&schedule), 1, "failures of a pod that is not ready do not count");
    schedule.set_target(&job, target("pod"), now);
    assert_eq!(
        read(&mut schedule, Err("refused".into()), now).1,
        5,
        "a pod that becomes ready is read at once"
    );
    let pause = Duration::from_secs(5);
    assert_eq!(read(&mut schedule, Err("refused".into()), now + pause).1, 10);
    assert_eq!(failures(&schedule), 3);
}

#[test]
fn a_job_whose_pods_change_is_read_at_once() {
    let (mut schedule, start) = (Schedule::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let job = job("a", "x");
    let with_pods = |pods_hash| Target { pods_hash, ..target("pod") };
    schedule.set_target(&job, with_pods(1), start);
    read(&mut schedule, Ok(report(1, 9_999)), at(0));
    assert_eq!(read(&mut schedule, Ok(report(2, 9_999)), at(600)), (true, 30));
    schedule.set_target(&job, with_pods(1), at(610));
    assert_eq!(schedule.next_due(), Some(at(630)), "nothing has changed");
    schedule.set_target(&job, with_pods(2), at(610));
    assert_eq!(
        read(&mut schedule, Ok(report(3, 9_999)), at(610)),
        (true, 5),
        "and again soon: worlds end later than pods"
    );
    // Thousands of pods that start one after the other cause a read a second.
    schedule.set_target(&job, with_pods(3), at(610));
    assert_eq!(schedule.next_due(), Some(at(611)));
}

#[test]
fn results_of_an_earlier_pod_are_dropped() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    let job = job("a", "x");
    schedule.set_target(&job, target("old"), now);
    let (_, old) = schedule.take_due(now).unwrap();
    schedule.set_target(&job, target("new"), now);
    assert!(!schedule.finish(&job, &old, Ok(report(1, 9)), now));
    assert_eq!(schedule.state(&job), ReportState::Pending);
    let (_, new) = schedule.take_due(now).unwrap();
    assert!(schedule.finish(&job, &new, Ok(report(1, 9)), now));
    schedule.retain(|uid| uid != "a/x");
    assert_eq!((schedule.state(&job), schedule.next_due()), (ReportState::NoPod, None));
}

#[test]
fn silent_pods_of_one_namespace_do_not_delay_another() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    for number in 0..200 {
        schedule.set_target(&job("silent", &number.to_string()), target("pod"), now);
    }
    let later = now + Duration::from_millis(1);
    schedule.set_target(&job("other", "x"), target("pod"), later);
    let mut taken = Vec::new();
    while let Some(read) = schedule.take_due(later) {
        taken.push(read);
    }
    assert_eq!(taken.len(), MAX_READS_PER_NAMESPACE + 1);
    assert_eq!(taken.pop().unwrap().0.namespace, "other");
    // Each end of a read lets the next job of the namespace start; all are read in the end.
    let mut count = 0;
    while let Some((job, target)) = taken.pop() {
        schedule.finish(&job, &target, Err("timed out".into()), later);
        count += 1;
        taken.extend(schedule.take_due(later));
    }
    assert_eq!(count, 200);
}
