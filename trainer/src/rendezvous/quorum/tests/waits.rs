use super::*;
use crate::rendezvous::PodWait;

fn waiting(pod: u32, operation: &str, is_overdue: bool) -> Heartbeat {
    let wait = PodWait { operation: operation.into(), is_overdue };
    Heartbeat { wait: Some(wait), ..heartbeat(pod, 1, State::Running(1)) }
}

/// A world of three pods that send these heartbeats.
fn decision_after(heartbeats: [Heartbeat; 3]) -> (Quorum, Decision) {
    let mut quorum = formed(3);
    for heartbeat in heartbeats {
        quorum.record_heartbeat(at(1), &heartbeat).unwrap();
    }
    let decision = quorum.decide(at(1));
    (quorum, decision)
}

#[test]
fn a_world_in_which_all_ranks_wait_until_their_deadlines_ends() {
    let pods =
        [0, 1, 2].map(|pod| waiting(pod, if pod == 1 { "the backward pass" } else { "all_reduce" }, true));
    let (quorum, decision) = decision_after(pods);
    let reason = "all ranks wait for each other: pods 0 and 2 in all_reduce, pod 1 in the backward pass";
    assert_eq!(decision, Decision::End { generation: 1, reason: reason.into() });
    let failure = quorum.last_failure().unwrap();
    assert_eq!((failure.reason, failure.rank), (FailureReason::Hang, None));
    assert!(failure.message.starts_with(reason), "{}", failure.message);
}

#[test]
fn a_world_goes_on_while_one_pod_may_make_progress() {
    let all = [0, 1, 2].map(|pod| waiting(pod, "all_reduce", true));
    for other in [waiting(1, "all_reduce", false), heartbeat(1, 1, State::Running(1))] {
        let mut pods = all.clone();
        pods[1] = other;
        assert_eq!(decision_after(pods).1, Decision::Keep(1));
    }
    let done = [0, 1, 2].map(|pod| heartbeat(pod, 1, State::Done(1)));
    assert_eq!(decision_after(done).1, Decision::Keep(1), "nobody waits");
}

#[test]
fn pods_that_are_done_need_not_wait() {
    let pods =
        [heartbeat(0, 1, State::Done(1)), waiting(1, "barrier", true), heartbeat(2, 1, State::Done(1))];
    let (_, decision) = decision_after(pods);
    let reason = "all ranks wait for each other: pod 1 in barrier";
    assert_eq!(decision, Decision::End { generation: 1, reason: reason.into() });
}

/// A later world is not blamed for it.
#[test]
fn the_wait_of_an_earlier_world_is_forgotten() {
    let (mut quorum, _) = decision_after([0, 1, 2].map(|pod| waiting(pod, "all_reduce", true)));
    for pod in 0..3 {
        quorum.record_heartbeat(at(2), &heartbeat(pod, 1, State::Idle { ended: Some(1) })).unwrap();
    }
    assert_eq!(decide(&mut quorum, at(2)), Decision::Propose(2));
    quorum.record_heartbeat(at(3), &heartbeat(0, 2, State::Idle { ended: Some(2) })).unwrap();
    assert!(matches!(quorum.decide(at(3)), Decision::End { generation: 2, .. }));
    assert_eq!(quorum.last_failure(), None);
}

#[test]
fn a_hang_names_what_the_others_wait_in() {
    let mut quorum = formed(3);
    quorum.record_heartbeat(at(1), &waiting(0, "all_reduce", false)).unwrap();
    quorum.record_heartbeat(at(1), &waiting(2, "all_reduce", false)).unwrap();
    quorum.record_heartbeat(at(2), &failing(1, 1, FailureReason::Hang)).unwrap();
    assert!(matches!(quorum.decide(at(2)), Decision::End { .. }));
    assert_eq!(quorum.last_failure().unwrap().message, "Hang; pods 0 and 2 wait in all_reduce");
}
