use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Instant {
    Duration::from_secs(seconds)
}

fn heartbeat(pod: u32, incarnation: u64, state: State) -> Heartbeat {
    let (preparation, storage, failure) = (None, None, None);
    Heartbeat { pod, incarnation, attempt: 1, job_uid: "uid".into(), state, preparation, storage, failure }
}

fn failing(pod: u32, generation: u32, reason: FailureReason) -> Heartbeat {
    let failure = Failure::of_rank(reason, pod, format!("{reason:?}"));
    Heartbeat { failure: Some(failure), ..heartbeat(pod, 1, State::Idle { ended: Some(generation) }) }
}

const IDLE: State = State::Idle { ended: None };

fn formed(pods: u32) -> Quorum {
    let mut quorum = Quorum::new(pods, 0);
    for pod in 0..pods {
        quorum.record_heartbeat(at(0), &heartbeat(pod, 1, IDLE));
    }
    assert_eq!(quorum.decide(at(0)), Decision::Form(1));
    quorum
}

#[test]
fn a_world_waits_for_every_pod() {
    let mut quorum = Quorum::new(3, 0);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE));
    quorum.record_heartbeat(at(0), &heartbeat(2, 1, IDLE));
    assert_eq!(quorum.decide(at(0)), Decision::Wait { missing: vec![1] });
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, IDLE));
    assert_eq!(quorum.decide(at(1)), Decision::Form(1));
    assert_eq!(quorum.decide(at(2)), Decision::Keep(1));
}

#[test]
fn a_world_waits_for_pods_that_prepare_their_data() {
    let mut quorum = Quorum::new(2, 0);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE));
    quorum.record_heartbeat(at(0), &heartbeat(1, 1, State::Preparing));
    assert_eq!(quorum.decide(at(0)), Decision::Wait { missing: vec![1] });
    assert_eq!(quorum.joined(at(0)), 1);
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, IDLE));
    assert_eq!(quorum.decide(at(1)), Decision::Form(1));
    // A replaced pod prepares its data again: the others need not wait for its silence.
    quorum.record_heartbeat(at(2), &heartbeat(1, 2, State::Preparing));
    assert!(matches!(quorum.decide(at(2)), Decision::End { generation: 1, .. }));
}

#[test]
fn pods_that_have_not_started_yet_do_not_end_it() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(0, 1, State::Running(1)));
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, IDLE));
    assert_eq!(quorum.decide(at(1)), Decision::Keep(1));
}

#[test]
fn a_dead_worker_ends_it_and_the_next_waits_for_the_other_pods_to_stop() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(0, 1, State::Running(1)));
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Idle { ended: Some(1) }));
    assert!(matches!(quorum.decide(at(1)), Decision::End { generation: 1, .. }));
    assert_eq!(quorum.decide(at(1)), Decision::Wait { missing: vec![0] });
    quorum.record_heartbeat(at(2), &heartbeat(0, 1, State::Idle { ended: Some(1) }));
    assert_eq!(quorum.decide(at(2)), Decision::Form(2));
}

#[test]
fn a_replaced_pod_ends_it() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(1, 2, IDLE));
    assert_eq!(
        quorum.decide(at(1)),
        Decision::End { generation: 1, reason: "pod 1 was replaced or restarted".into() }
    );
}

#[test]
fn a_silent_pod_ends_it() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(11), &heartbeat(0, 1, State::Running(1)));
    assert!(
        matches!(quorum.decide(at(11)), Decision::End { reason, .. } if reason.contains("no heartbeat from pod 1 for 10 s"))
    );
}

#[test]
fn a_rank_that_is_done_does_not_end_it_but_can_start_again() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Done(1)));
    assert_eq!(quorum.decide(at(1)), Decision::Keep(1));
    quorum.record_heartbeat(at(2), &heartbeat(0, 2, IDLE));
    assert!(matches!(quorum.decide(at(2)), Decision::End { .. }));
    assert_eq!(quorum.decide(at(2)), Decision::Form(2));
}

#[test]
fn the_generation_never_falls() {
    let mut quorum = Quorum::new(2, 0);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE));
    quorum.record_heartbeat(at(0), &heartbeat(1, 1, State::Idle { ended: Some(7) }));
    assert_eq!(quorum.decide(at(0)), Decision::Form(8));
    let mut restarted = Quorum::new(1, 12);
    restarted.record_heartbeat(at(0), &heartbeat(0, 1, IDLE));
    assert_eq!(restarted.decide(at(0)), Decision::Form(13));
}

#[test]
fn the_cause_is_kept_and_not_what_the_others_saw_of_it() {
    let mut quorum = formed(3);
    quorum.record_heartbeat(at(1), &failing(0, 1, FailureReason::Communication));
    quorum.record_heartbeat(at(1), &failing(1, 1, FailureReason::OutOfMemory));
    quorum.record_heartbeat(at(1), &failing(2, 1, FailureReason::Communication));
    assert_eq!(quorum.last_failure().unwrap().reason, FailureReason::OutOfMemory);
    assert!(matches!(quorum.decide(at(1)), Decision::End { .. }));
}

#[test]
fn a_failure_of_an_earlier_world_is_not_the_cause() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &failing(0, 1, FailureReason::OutOfMemory));
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Idle { ended: Some(1) }));
    assert!(matches!(quorum.decide(at(1)), Decision::End { generation: 1, .. }));
    assert_eq!(quorum.decide(at(5)), Decision::Form(2));
    assert_eq!(quorum.last_failure().unwrap().reason, FailureReason::OutOfMemory);
    quorum.record_heartbeat(at(3600), &heartbeat(0, 1, State::Running(2)));
    assert!(matches!(quorum.decide(at(3600)), Decision::End { generation: 2, .. }), "pod 1 is silent");
    assert_eq!(quorum.last_failure(), None);
}

#[test]
fn a_final_failure_ends_the_job() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &failing(1, 1, FailureReason::Data));
    assert_eq!(quorum.decide(at(1)), Decision::Over);
    assert!(
        matches!(quorum.verdict(), Some(Verdict::Failed(failure)) if failure.reason == FailureReason::Data)
    );
}

#[test]
fn worlds_that_die_young_are_retried_ever_more_slowly() {
    let mut quorum = formed(1);
    let mut now = at(0);
    let mut waits = Vec::new();
    for generation in 1..9 {
        now += at(1);
        quorum.record_heartbeat(now, &heartbeat(0, 1, State::Idle { ended: Some(generation) }));
        assert!(matches!(quorum.decide(now), Decision::End { .. }));
        let ended = now;
        while quorum.decide(now) != Decision::Form(generation + 1) {
            now += at(1);
            quorum.record_heartbeat(now, &heartbeat(0, 1, State::Idle { ended: Some(generation) }));
        }
        waits.push(now.saturating_sub(ended).as_secs());
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_pod_beyond_the_job_is_ignored() {
    let mut quorum = Quorum::new(1, 0);
    quorum.record_heartbeat(at(0), &heartbeat(5, 1, IDLE));
    assert_eq!(quorum.joined(at(0)), 0);
}

proptest! {
    /// Whatever is said in whatever order: a world has all pods, fresh and not running another, and its generation is
    /// higher than any before.
    #[test]
    fn worlds_are_whole_and_generations_rise(
        pods in 1_u32..5,
        talk in prop::collection::vec((0_u32..6, 0_u64..3, 0_u8..3, 0_u32..4, 0_u64..8), 0..80),
    ) {
        let mut quorum = Quorum::new(pods, 0);
        let mut now = at(0);
        let mut last = 0;
        let mut members = BTreeMap::new();
        for (pod, incarnation, kind, generation, pause) in talk {
            now += at(pause);
            let state = match kind {
                0 => State::Idle { ended: Some(generation) },
                1 => State::Running(generation),
                _ => State::Done(generation),
            };
            quorum.record_heartbeat(now, &heartbeat(pod, incarnation, state));
            if pod < pods {
                members.insert(pod, (now, state));
            }
            if let Decision::Form(generation) = quorum.decide(now) {
                prop_assert!(generation > last);
                last = generation;
                prop_assert_eq!(members.len() as u32, pods);
                for (last_heartbeat, state) in members.values() {
                    prop_assert!(now.saturating_sub(*last_heartbeat) <= LOST_AFTER && !matches!(state, State::Running(_)));
                }
            }
        }
    }
}

fn full_volume() -> StorageTrouble {
    StorageTrouble {
        error: "ENOSPC".into(),
        message: "cannot write /checkpoints/x (ENOSPC)".into(),
        since: 7,
    }
}

#[test]
fn pods_that_wait_for_their_storage_are_named() {
    let mut quorum = formed(3);
    assert_eq!(quorum.waiting_for_storage(at(0)), None);
    for pod in [2, 1] {
        let storage = Some(full_volume());
        quorum.record_heartbeat(at(1), &Heartbeat { storage, ..heartbeat(pod, 1, State::Running(1)) });
    }
    let expected = WaitingForStorage { pods: 2, pod: 1, trouble: full_volume() };
    assert_eq!(quorum.waiting_for_storage(at(1)), Some(expected));
    quorum.record_heartbeat(at(2), &heartbeat(1, 1, State::Running(1)));
    assert_eq!(quorum.waiting_for_storage(at(2)).unwrap().pod, 2);
    assert_eq!(quorum.waiting_for_storage(at(12)), None, "pod 2 is silent");
}

/// The failure of a world in which pod 1 fails while pod 0 waits for its storage.
fn failure_with_a_full_volume(reason: FailureReason) -> Failure {
    let mut quorum = formed(2);
    let storage = Some(full_volume());
    quorum.record_heartbeat(at(1), &Heartbeat { storage, ..heartbeat(0, 1, State::Running(1)) });
    quorum.record_heartbeat(at(2), &failing(1, 1, reason));
    assert!(matches!(quorum.decide(at(2)), Decision::End { generation: 1, .. }));
    quorum.last_failure().unwrap().clone()
}

/// Collectives time out, while the storage is waited for without a limit.
#[test]
fn a_world_that_ends_because_a_pod_waits_for_its_storage_has_this_cause() {
    let failure = failure_with_a_full_volume(FailureReason::Communication);
    assert_eq!((failure.reason, failure.message), (FailureReason::Storage, full_volume().message));
}

#[test]
fn another_failure_is_not_attributed_to_the_storage() {
    let failure = failure_with_a_full_volume(FailureReason::OutOfMemory);
    assert_eq!(failure.reason, FailureReason::OutOfMemory);
}

#[test]
fn a_world_whose_generation_cannot_be_recorded_forms_later_with_the_same_one() {
    let mut quorum = formed(2);
    quorum.postpone(at(0));
    assert_eq!((quorum.running(), quorum.generation()), (None, 0));
    let wait = Decision::Wait { missing: Vec::new() };
    assert_eq!(quorum.decide(at(0)), wait);
    assert_eq!(quorum.decide(at(1)), Decision::Form(1));
    // Nothing to take back.
    let mut waiting = Quorum::new(2, 5);
    waiting.postpone(at(0));
    assert_eq!(waiting.generation(), 5);
}
