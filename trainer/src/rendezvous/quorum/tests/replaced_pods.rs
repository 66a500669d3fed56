//! Pods that others have replaced under the same index.

use super::*;

/// Pod 1 of [`formed`].
fn original(state: State) -> Heartbeat {
    heartbeat(1, 1, state)
}

/// The pod that replaced it.
fn replacement(state: State) -> Heartbeat {
    Heartbeat { pod_uid: "new".into(), ..heartbeat(1, 2, state) }
}

fn superseded() -> Result<(), Refused> {
    Err(Refused::Superseded { pod: 1, pod_uid: "pod-1".into(), successor: "new".into() })
}

/// Deleted by force, on a node that is cut off and comes back.
#[test]
fn a_superseded_pod_never_counts_again() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &replacement(IDLE)).unwrap();
    assert!(matches!(quorum.decide(at(1)), Decision::End { generation: 1, .. }));
    assert_eq!(decide(&mut quorum, at(1)), Decision::Propose(2));
    for second in 2..20 {
        assert_eq!(quorum.record_heartbeat(at(second), &original(State::Running(1))), superseded());
        quorum.record_heartbeat(at(second), &heartbeat(0, 1, State::Running(2))).unwrap();
        quorum.record_heartbeat(at(second), &replacement(State::Running(2))).unwrap();
        assert_eq!(quorum.decide(at(second)), Decision::Keep(2));
    }
}

#[test]
fn nothing_that_a_superseded_pod_sends_counts() {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &replacement(State::Preparing)).unwrap();
    let failure = Some(Failure::new(FailureReason::Data, "cannot read /data"));
    let storage = Some(storage::full_volume());
    let old = Heartbeat { storage, failure, ..original(State::Idle { ended: Some(1) }) };
    assert_eq!(quorum.record_heartbeat(at(1), &old), superseded());
    assert_eq!((quorum.verdict(), quorum.last_failure(), quorum.generation()), (None, None, 1));
    assert_eq!((quorum.waiting_for_storage(at(1)), quorum.joined(at(1))), (None, 1));
}

#[test]
fn a_restart_of_the_agent_supersedes_no_pod() {
    let mut quorum = formed(2);
    let mut now = at(1);
    for (incarnation, generation) in [(2, 2), (3, 3), (2, 4)] {
        quorum.record_heartbeat(now, &heartbeat(1, incarnation, IDLE)).unwrap();
        assert!(matches!(quorum.decide(now), Decision::End { .. }));
        now += LONGEST_BACKOFF;
        quorum.record_heartbeat(now, &heartbeat(0, 1, IDLE)).unwrap();
        quorum.record_heartbeat(now, &heartbeat(1, incarnation, IDLE)).unwrap();
        assert_eq!(decide(&mut quorum, now), Decision::Propose(generation));
    }
}

/// The host was replaced too, and the pod from before reaches it last.
#[test]
fn a_pod_of_an_earlier_world_that_a_new_host_does_not_know_is_no_successor() {
    let mut quorum = Quorum::new(2, 5);
    quorum.record_heartbeat(at(0), &replacement(State::Preparing)).unwrap();
    let old = original(State::Idle { ended: Some(5) });
    assert_eq!(quorum.record_heartbeat(at(0), &old), superseded());
    quorum.record_heartbeat(at(1), &replacement(IDLE)).unwrap();
}
