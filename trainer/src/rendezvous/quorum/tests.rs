use datjob_api::report::FailureReason;
use proptest::prelude::*;

use super::*;

mod pod_failures;
mod recording;
mod replaced_pods;
mod stalls;
mod storage;
mod verdicts;
mod waits;

fn at(seconds: u64) -> Instant {
    Duration::from_secs(seconds)
}

fn heartbeat(pod: u32, incarnation: u64, state: State) -> Heartbeat {
    Heartbeat {
        pod,
        pod_uid: format!("pod-{pod}"),
        incarnation,
        sequence: 0,
        attempt: 1,
        job_uid: "uid".into(),
        state,
        trains: false,
        preparation: None,
        storage: None,
        wait: None,
        failure: None,
    }
}

fn failing(pod: u32, generation: u32, reason: FailureReason) -> Heartbeat {
    let failure = Failure::of_rank(reason, pod, format!("{reason:?}"));
    Heartbeat { failure: Some(failure), ..heartbeat(pod, 1, State::Idle { ended: Some(generation) }) }
}

const IDLE: State = State::Idle { ended: None };

/// Decides. A generation that is proposed is recorded at once.
fn decide(quorum: &mut Quorum, now: Instant) -> Decision {
    let decision = quorum.decide(now);
    if let Decision::Propose(generation) = decision {
        assert_eq!(quorum.commit(now), Some(generation));
    }
    decision
}

/// Heartbeats of pod 0 alone, every second, until the world ends; returns that second.
fn end_in_silence(quorum: &mut Quorum, from: u64, state: State) -> (u64, Decision) {
    for second in from..from + 60 {
        quorum.record_heartbeat(at(second), &heartbeat(0, 1, state)).unwrap();
        let decision = quorum.decide(at(second));
        if !matches!(decision, Decision::Keep(_)) {
            return (second, decision);
        }
    }
    panic!("the world goes on");
}

fn formed(pods: u32) -> Quorum {
    let mut quorum = Quorum::new(pods, 0);
    for pod in 0..pods {
        quorum.record_heartbeat(at(0), &heartbeat(pod, 1, IDLE)).unwrap();
    }
    assert_eq!(decide(&mut quorum, at(0)), Decision::Propose(1));
    quorum
}

#[test]
fn a_world_waits_for_every_pod() {
    let mut quorum = Quorum::new(3, 0);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE)).unwrap();
    quorum.record_heartbeat(at(0), &heartbeat(2, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(0)), Decision::Wait { missing: vec![1] });
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(1)), Decision::Propose(1));
    assert_eq!(decide(&mut quorum, at(2)), Decision::Keep(1));
}

#[test]
fn a_world_waits_for_pods_that_prepare_their_data() {
    let mut quorum = Quorum::new(2, 0);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE)).unwrap();
    quorum.record_heartbeat(at(0), &heartbeat(1, 1, State::Preparing)).unwrap();
    assert_eq!(decide(&mut quorum, at(0)), Decision::Wait { missing: vec![1] });
    assert_eq!(quorum.joined(at(0)), 1);
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(1)), Decision::Propose(1));
    // A replaced pod prepares its data again: the others need not wait for its silence.
    quorum.record_heartbeat(at(2), &heartbeat(1, 2, State::Preparing)).unwrap();
    assert!(matches!(decide(&mut quorum, at(2)), Decision::End { generation: 1, .. }));
}

#[test]
fn pods_that_have_not_started_yet_do_not_end_it() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(0, 1, State::Running(1))).unwrap();
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(1)), Decision::Keep(1));
}

#[test]
fn a_dead_worker_ends_it_and_the_next_waits_for_the_other_pods_to_stop() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(0, 1, State::Running(1))).unwrap();
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Idle { ended: Some(1) })).unwrap();
    assert!(matches!(decide(&mut quorum, at(1)), Decision::End { generation: 1, .. }));
    assert_eq!(decide(&mut quorum, at(1)), Decision::Wait { missing: vec![0] });
    quorum.record_heartbeat(at(2), &heartbeat(0, 1, State::Idle { ended: Some(1) })).unwrap();
    assert_eq!(decide(&mut quorum, at(2)), Decision::Propose(2));
}

#[test]
fn a_replaced_pod_ends_it() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(1, 2, IDLE)).unwrap();
    assert_eq!(
        decide(&mut quorum, at(1)),
        Decision::End { generation: 1, reason: "pod 1 was replaced or restarted".into() }
    );
}

#[test]
fn a_silent_pod_ends_it() {
    let (second, decision) = end_in_silence(&mut formed(2), 1, State::Running(1));
    let reason = "no heartbeat from pod 1 for 10 s".into();
    assert_eq!((second, decision), (11, Decision::End { generation: 1, reason }));
}

#[test]
fn a_rank_that_is_done_does_not_end_it_but_can_start_again() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Done(1))).unwrap();
    assert_eq!(decide(&mut quorum, at(1)), Decision::Keep(1));
    quorum.record_heartbeat(at(2), &heartbeat(0, 2, IDLE)).unwrap();
    assert!(matches!(decide(&mut quorum, at(2)), Decision::End { .. }));
    assert_eq!(decide(&mut quorum, at(2)), Decision::Propose(2));
}

#[test]
fn the_generation_never_falls() {
    let mut quorum = Quorum::new(2, 7);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE)).unwrap();
    quorum.record_heartbeat(at(0), &heartbeat(1, 1, State::Idle { ended: Some(7) })).unwrap();
    assert_eq!(decide(&mut quorum, at(0)), Decision::Propose(8));
    let mut restarted = Quorum::new(1, 12);
    restarted.record_heartbeat(at(0), &heartbeat(0, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut restarted, at(0)), Decision::Propose(13));
}

/// The next generation would have to be higher, and no number is.
#[test]
fn a_forged_generation_is_rejected_and_changes_nothing() {
    let mut quorum = formed(2);
    for state in
        [State::Running(u32::MAX), State::Done(2), State::Idle { ended: Some(u32::MAX) }, State::Running(2)]
    {
        let theirs = state.generation().unwrap();
        let refused = Refused::UnknownGeneration { pod: 1, ours: 1, theirs };
        assert_eq!(quorum.record_heartbeat(at(1), &heartbeat(1, 1, state)), Err(refused));
    }
    assert_eq!((quorum.generation(), quorum.decide(at(1))), (1, Decision::Keep(1)));
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Running(1))).unwrap();
    quorum.record_heartbeat(at(2), &heartbeat(0, 2, IDLE)).unwrap();
    assert!(matches!(quorum.decide(at(2)), Decision::End { generation: 1, .. }));
    quorum.record_heartbeat(at(2), &heartbeat(1, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(2)), Decision::Propose(2));
}

#[test]
fn the_cause_is_kept_and_not_what_the_others_saw_of_it() {
    let mut quorum = formed(3);
    quorum.record_heartbeat(at(1), &failing(0, 1, FailureReason::Communication)).unwrap();
    quorum.record_heartbeat(at(1), &failing(1, 1, FailureReason::OutOfMemory)).unwrap();
    quorum.record_heartbeat(at(1), &failing(2, 1, FailureReason::Communication)).unwrap();
    assert_eq!(quorum.last_failure().unwrap().reason, FailureReason::OutOfMemory);
    assert!(matches!(decide(&mut quorum, at(1)), Decision::End { .. }));
}

#[test]
fn a_failure_of_an_earlier_world_is_not_the_cause() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &failing(0, 1, FailureReason::OutOfMemory)).unwrap();
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Idle { ended: Some(1) })).unwrap();
    assert!(matches!(decide(&mut quorum, at(1)), Decision::End { generation: 1, .. }));
    assert_eq!(decide(&mut quorum, at(5)), Decision::Propose(2));
    assert_eq!(quorum.last_failure().unwrap().reason, FailureReason::OutOfMemory);
    let (_, decision) = end_in_silence(&mut quorum, 6, State::Running(2));
    assert!(matches!(decision, Decision::End { generation: 2, .. }), "pod 1 is silent");
    assert_eq!(quorum.last_failure(), None);
}

#[test]
fn worlds_that_die_young_are_retried_ever_more_slowly() {
    let mut quorum = formed(1);
    let mut now = at(0);
    let mut waits = Vec::new();
    for generation in 1..9 {
        now += at(1);
        quorum.record_heartbeat(now, &heartbeat(0, 1, State::Idle { ended: Some(generation) })).unwrap();
        assert!(matches!(decide(&mut quorum, now), Decision::End { .. }));
        let ended = now;
        while decide(&mut quorum, now) != Decision::Propose(generation + 1) {
            now += at(1);
            quorum.record_heartbeat(now, &heartbeat(0, 1, State::Idle { ended: Some(generation) })).unwrap();
        }
        waits.push(now.saturating_sub(ended).as_secs());
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_pod_beyond_the_job_is_ignored() {
    let mut quorum = Quorum::new(1, 0);
    quorum.record_heartbeat(at(0), &heartbeat(5, 1, IDLE)).unwrap();
    assert_eq!(quorum.joined(at(0)), 0);
}

proptest! {
    /// Whatever pods say in whatever order, and however long a generation takes to be recorded: a world has all pods, with
    /// recent heartbeats and not running another, and its generation is higher than any before.
    #[test]
    fn worlds_are_whole_and_generations_rise(
        pods in 1_u32..5,
        talk in prop::collection::vec((0_u32..6, 0_u64..3, 0_u8..3, 0_u32..4, 0_u64..8, 0_u8..3), 0..80),
    ) {
        let mut quorum = Quorum::new(pods, 0);
        let mut now = at(0);
        let mut last = 0;
        let mut members = BTreeMap::new();
        for (pod, incarnation, kind, generation, pause, recorded) in talk {
            now += at(pause);
            let state = match kind {
                0 => State::Idle { ended: Some(generation) },
                1 => State::Running(generation),
                _ => State::Done(generation),
            };
            let accepted = quorum.record_heartbeat(now, &heartbeat(pod, incarnation, state)).is_ok();
            prop_assert!(accepted || generation > last);
            if accepted && pod < pods {
                members.insert(pod, (now, state));
            }
            let formed = match (quorum.decide(now), recorded) {
                (Decision::Propose(_) | Decision::Recording(_), 0) => quorum.commit(now),
                (Decision::Propose(_) | Decision::Recording(_), 1) => {
                    quorum.postpone(now);
                    None
                }
                _ => None,
            };
            prop_assert!(formed.is_none() || formed == quorum.running());
            if let Some(generation) = formed {
                prop_assert!(generation > last);
                last = generation;
                prop_assert_eq!(members.len() as u32, pods);
                for (last_heartbeat, state) in members.values() {
                    let is_recent = now.saturating_sub(*last_heartbeat) <= LOST_AFTER;
                    prop_assert!(is_recent && !matches!(state, State::Running(_)));
                }
            }
        }
    }
}
