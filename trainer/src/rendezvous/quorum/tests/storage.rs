//! Pods that wait for their storage.

use super::*;

pub(super) fn full_volume() -> StorageTrouble {
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
        let waiting = Heartbeat { storage: Some(full_volume()), ..heartbeat(pod, 1, State::Running(1)) };
        quorum.record_heartbeat(at(1), &waiting).unwrap();
    }
    let expected = WaitingForStorage { pods: 2, pod: 1, trouble: full_volume() };
    assert_eq!(quorum.waiting_for_storage(at(1)), Some(expected));
    quorum.record_heartbeat(at(2), &heartbeat(1, 1, State::Running(1))).unwrap();
    assert_eq!(quorum.waiting_for_storage(at(2)).unwrap().pod, 2);
    assert_eq!(quorum.waiting_for_storage(at(12)), None, "pod 2 is silent");
}

/// The failure of a world in which pod 1 fails while pod 0 waits for its storage.
fn failure_with_a_full_volume(reason: FailureReason) -> Failure {
    let mut quorum = formed(2);
    let storage = Some(full_volume());
    quorum.record_heartbeat(at(1), &Heartbeat { storage, ..heartbeat(0, 1, State::Running(1)) }).unwrap();
    quorum.record_heartbeat(at(2), &failing(1, 1, reason)).unwrap();
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
