//! The time between the proposal of a generation and its world.

use super::*;

/// A quorum of two pods that has proposed generation 1 and sends heartbeats until a moment.
fn proposed(until: u64) -> Quorum {
    let mut quorum = Quorum::new(2, 0);
    for second in 0..=until {
        for pod in 0..2 {
            quorum.record_heartbeat(at(second), &heartbeat(pod, 1, IDLE)).unwrap();
        }
        let expected = if second == 0 { Decision::Propose(1) } else { Decision::Recording(1) };
        assert_eq!(quorum.decide(at(second)), expected);
    }
    quorum
}

#[test]
fn no_pod_receives_a_world_whose_generation_is_not_recorded() {
    let mut quorum = proposed(60);
    assert_eq!((quorum.running(), quorum.generation()), (None, 0));
    assert_eq!(quorum.commit(at(60)), Some(1));
    assert_eq!((quorum.running(), quorum.generation()), (Some(1), 1));
    assert_eq!(quorum.decide(at(60)), Decision::Keep(1));
}

#[test]
fn a_world_whose_generation_cannot_be_recorded_forms_later_with_the_same_one() {
    let mut quorum = proposed(0);
    quorum.postpone(at(0));
    assert_eq!((quorum.running(), quorum.generation()), (None, 0));
    let wait = Decision::Wait { missing: Vec::new() };
    assert_eq!(quorum.decide(at(0)), wait);
    assert_eq!(decide(&mut quorum, at(1)), Decision::Propose(1));
    // Nothing to take back.
    let mut waiting = Quorum::new(2, 5);
    waiting.postpone(at(0));
    assert_eq!((waiting.generation(), waiting.commit(at(0))), (5, None));
}

#[test]
fn a_pod_that_is_lost_while_its_generation_is_recorded_is_waited_for() {
    let mut quorum = proposed(0);
    quorum.record_heartbeat(at(1), &heartbeat(1, 2, State::Preparing)).unwrap();
    assert_eq!(quorum.decide(at(1)), Decision::Recording(1), "one recording at a time");
    assert_eq!(quorum.commit(at(1)), None);
    assert_eq!(quorum.decide(at(1)), Decision::Wait { missing: vec![1] });
    // Nobody has received the generation.
    quorum.record_heartbeat(at(2), &heartbeat(1, 2, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(2)), Decision::Propose(1));
    assert_eq!(quorum.decide(at(2)), Decision::Keep(1));
}

#[test]
fn no_world_forms_after_the_job_has_ended() {
    let mut quorum = proposed(0);
    quorum.succeed();
    assert_eq!(quorum.commit(at(0)), None);
    assert_eq!(quorum.decide(at(0)), Decision::Over);
    let mut quorum = proposed(0);
    let failure = Failure::new(FailureReason::Data, "cannot write generation");
    quorum.abandon(at(0), &failure);
    assert_eq!(quorum.decide(at(0)), Decision::ProposeVerdict(failure.clone()));
    quorum.confirm_failure(failure);
    assert_eq!(quorum.decide(at(0)), Decision::Over);
}
