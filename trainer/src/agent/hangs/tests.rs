use super::*;

fn at(seconds: u64) -> Instant {
    Duration::from_secs(seconds)
}

fn busy(count: u64) -> Pulse {
    Pulse { count, waits_in: None }
}

fn waiting(count: u64) -> Pulse {
    Pulse { count, waits_in: Some("all_reduce".into()) }
}

/// Worker 3 in its training, with steps of this length until second `until`; pulses and ticks come every second.
fn training(step: u64, until: u64) -> HangDetector {
    let mut detector = HangDetector::default();
    detector.add(3, at(0));
    detector.stage(3, Stage::Training, at(0));
    for second in 1..=until {
        detector.tick(at(second));
        detector.pulse(3, busy(second / step), at(second));
    }
    detector
}

/// The first second after `from`, up to `until`, in which worker 3 hangs. It goes on to send pulses without progress.
fn hangs_at(detector: &mut HangDetector, pulse: &Pulse, from: u64, until: u64) -> Option<u64> {
    (from + 1..=until).find(|second| {
        detector.tick(at(*second));
        detector.pulse(3, pulse.clone(), at(*second));
        !detector.hung(at(*second), |_| false).is_empty()
    })
}

#[test]
fn the_deadline_is_ten_times_the_longest_pause_and_at_least_a_minute() {
    for (step, deadline) in [(1, 60), (6, 60), (20, 200)] {
        let mut detector = training(step, 120);
        assert_eq!(hangs_at(&mut detector, &busy(120 / step), 120, 999), Some(120 + deadline + 1), "{step}");
    }
}

#[test]
fn the_sentence_names_the_stage_and_both_times() {
    let mut detector = training(1, 100);
    hangs_at(&mut detector, &busy(100), 100, 161);
    let expected = "the worker has made no progress for 61 s in stage training while it computed (deadline: 60 s); its log \
                    has its stack";
    assert_eq!(detector.hung(at(161), |_| false), [(3, expected.to_owned())]);
}

#[test]
fn the_first_pulses_of_a_stage_have_ten_minutes() {
    let mut detector = training(1, 100);
    detector.stage(3, Stage::Evaluation, at(100));
    assert_eq!(hangs_at(&mut detector, &busy(100), 100, 999), Some(701));
    // A stage that comes again has its own times still.
    let mut detector = training(1, 100);
    detector.stage(3, Stage::Validation, at(100));
    detector.stage(3, Stage::Training, at(101));
    assert_eq!(hangs_at(&mut detector, &busy(100), 101, 999), Some(162));
}

#[test]
fn a_worker_that_waits_does_not_hang_and_its_waits_lengthen_no_deadline() {
    let mut detector = training(1, 100);
    assert_eq!(hangs_at(&mut detector, &waiting(100), 100, 5_000), None);
    assert_eq!(detector.wait(at(5_000)), Some(PodWait { operation: "all_reduce".into(), is_overdue: true }));
    // It computes again: the hours of waiting are not its pace.
    detector.pulse(3, busy(101), at(5_001));
    assert_eq!(detector.wait(at(5_001)), None);
    assert_eq!(hangs_at(&mut detector, &busy(101), 5_001, 9_999), Some(5_062));
}

#[test]
fn a_pod_waits_if_all_its_workers_do() {
    let mut detector = training(1, 100);
    detector.add(4, at(100));
    detector.pulse(3, waiting(101), at(101));
    detector.pulse(4, busy(1), at(101));
    assert_eq!(detector.wait(at(101)), None);
    detector.pulse(4, waiting(2), at(102));
    let wait = detector.wait(at(102)).unwrap();
    assert_eq!((wait.operation.as_str(), wait.is_overdue), ("all_reduce", false));
    // Worker 4 is at its start, where it has ten minutes.
    let mut is_overdue = |second| {
        detector.pulse(3, waiting(101), at(second));
        detector.pulse(4, waiting(2), at(second));
        detector.wait(at(second)).unwrap().is_overdue
    };
    assert!(!is_overdue(400) && is_overdue(703));
    detector.remove(4);
    detector.remove(3);
    assert_eq!(detector.wait(at(703)), None);
}

/// Otherwise all ranks would seem to wait for each other, and nobody would be named.
#[test]
fn a_worker_without_pulses_does_not_wait() {
    let mut detector = training(1, 100);
    detector.pulse(3, waiting(101), at(101));
    assert!(detector.wait(at(106)).is_some());
    assert_eq!(detector.wait(at(107)), None);
}

#[test]
fn a_stopped_process_sends_no_pulses() {
    let mut detector = training(1, 100);
    let silent = |detector: &mut HangDetector, until: u64| {
        (101..=until).find(|second| {
            detector.tick(at(*second));
            !detector.hung(at(*second), |_| true).is_empty()
        })
    };
    assert_eq!(silent(&mut detector, 160), None);
    assert_eq!(silent(&mut detector, 999), Some(161), "even one that waited for its storage");
    let (_, sentence) = detector.hung(at(161), |_| true).remove(0);
    let expected = "the worker has sent no pulse for 61 s in stage training: its process is stopped, or it gets no CPU time";
    assert_eq!(sentence, expected);
}

#[test]
fn a_worker_that_waits_for_its_storage_does_not_hang() {
    let mut detector = training(1, 100);
    for second in 101..2_000 {
        detector.tick(at(second));
        detector.pulse(3, busy(100), at(second));
        assert_eq!(detector.hung(at(second), |rank| rank == 3), Vec::new());
    }
}

#[test]
fn a_stall_of_the_agent_is_no_hang() {
    let mut detector = training(1, 100);
    detector.tick(at(300));
    assert_eq!(detector.hung(at(300), |_| false), Vec::new());
    // The deadlines start anew.
    assert_eq!(hangs_at(&mut detector, &busy(100), 300, 999), Some(361));
}
