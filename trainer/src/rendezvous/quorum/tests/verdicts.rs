//! The time between a final failure and the end of the job.

use super::*;

fn numerical() -> Failure {
    failing(1, 1, FailureReason::Numerical).failure.unwrap()
}

/// A quorum of two pods that proposed the failure of pod 1 at 1 s.
fn proposed() -> Quorum {
    let mut quorum = formed(2);
    quorum.record_heartbeat(at(1), &failing(1, 1, FailureReason::Numerical)).unwrap();
    assert_eq!(quorum.decide(at(1)), Decision::ProposeVerdict(numerical()));
    quorum
}

#[test]
fn a_final_failure_ends_the_job_once_it_is_recorded() {
    let mut quorum = proposed();
    assert_eq!(quorum.verdict(), None, "not durable yet");
    assert!(matches!(quorum.decide(at(1)), Decision::End { generation: 1, .. }));
    for second in 2..60 {
        quorum.record_heartbeat(at(second), &heartbeat(0, 1, State::Idle { ended: Some(1) })).unwrap();
        quorum.record_heartbeat(at(second), &failing(1, 1, FailureReason::Numerical)).unwrap();
        assert_eq!(quorum.decide(at(second)), Decision::RecordingVerdict, "no world forms meanwhile");
    }
    quorum.confirm_failure(numerical());
    assert_eq!(quorum.verdict(), Some(&Verdict::Failed(numerical())));
    assert_eq!(quorum.decide(at(60)), Decision::Over);
}

#[test]
fn the_first_recorded_failure_is_the_verdict() {
    let mut quorum = proposed();
    let recorded = Failure::new(FailureReason::Numerical, "before pod 0 restarted");
    quorum.confirm_failure(recorded.clone());
    quorum.confirm_failure(numerical());
    assert_eq!(quorum.verdict(), Some(&Verdict::Failed(recorded)));
}

#[test]
fn results_win_over_a_failure_that_is_being_recorded() {
    let mut quorum = proposed();
    quorum.succeed();
    quorum.confirm_failure(numerical());
    assert_eq!(quorum.verdict(), Some(&Verdict::Succeeded));
    assert_eq!(quorum.decide(at(2)), Decision::Over);
}

#[test]
fn a_failure_that_was_not_recorded_is_proposed_again() {
    let mut quorum = proposed();
    assert!(matches!(quorum.decide(at(1)), Decision::End { .. }));
    quorum.postpone_failure(at(1));
    assert_eq!(quorum.decide(at(1)), Decision::RecordingVerdict);
    assert_eq!(quorum.decide(at(2)), Decision::ProposeVerdict(numerical()));
}

#[test]
fn no_world_forms_whose_generation_was_recorded_meanwhile() {
    let mut quorum = Quorum::new(2, 0);
    for pod in 0..2 {
        quorum.record_heartbeat(at(0), &heartbeat(pod, 1, IDLE)).unwrap();
    }
    assert_eq!(quorum.decide(at(0)), Decision::Propose(1));
    quorum.abandon(at(0), &numerical());
    assert_eq!(quorum.decide(at(0)), Decision::ProposeVerdict(numerical()));
    assert_eq!(quorum.commit(at(0)), None);
    assert_eq!(quorum.decide(at(0)), Decision::RecordingVerdict);
}
