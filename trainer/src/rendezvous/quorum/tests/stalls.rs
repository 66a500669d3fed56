//! Stalls of the host: SIGSTOP, a paused virtual machine.

use super::*;

#[test]
fn a_stall_of_the_host_costs_no_pod_its_lease() {
    let mut quorum = formed(3);
    for pod in 0..3 {
        quorum.record_heartbeat(at(1), &heartbeat(pod, 1, State::Running(1))).unwrap();
    }
    // A minute later the heartbeat of pod 0 is the first.
    let mut beat = |second, pod| {
        quorum.record_heartbeat(at(second), &heartbeat(pod, 1, State::Running(1))).unwrap();
        (quorum.decide(at(second)), quorum.joined(at(second)))
    };
    assert_eq!(beat(61, 0), (Decision::Keep(1), 3));
    assert_eq!(beat(63, 1), (Decision::Keep(1), 3));
    // Pod 2 was lost meanwhile. Its lease began at the end of the stall.
    for second in 64..=71 {
        for pod in 0..2 {
            assert_eq!(beat(second, pod), (Decision::Keep(1), 3));
        }
    }
    let reason = "no heartbeat from pod 2 for 10 s".into();
    assert_eq!(beat(72, 0), (Decision::End { generation: 1, reason }, 2));
}

/// A lease says that a pod is not lost, not that it is there.
#[test]
fn a_world_after_a_stall_waits_for_heartbeats() {
    let mut quorum = Quorum::new(2, 0);
    quorum.record_heartbeat(at(0), &heartbeat(1, 1, IDLE)).unwrap();
    quorum.record_heartbeat(at(60), &heartbeat(0, 1, IDLE)).unwrap();
    assert_eq!(quorum.decide(at(60)), Decision::Wait { missing: vec![1] });
    quorum.record_heartbeat(at(61), &heartbeat(1, 1, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(61)), Decision::Propose(1));
}

#[test]
fn a_stall_is_reported_once_and_not_after_the_end_of_the_job() {
    let mut quorum = formed(1);
    assert_eq!([4, 64, 64, 65].map(|second| quorum.tick(at(second))), [None, Some(at(60)), None, None]);
    quorum.succeed();
    assert_eq!(quorum.tick(at(600)), None);
}
