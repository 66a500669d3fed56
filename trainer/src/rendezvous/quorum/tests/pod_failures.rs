//! Failures of configuration and data: of the job before it trains, of a pod later.

use super::*;

fn missing_file() -> Failure {
    Failure::new(FailureReason::Data, "cannot read /data/x: no such file.")
}

/// Pod 1, which cannot prepare its data.
fn unprepared() -> Heartbeat {
    Heartbeat { failure: Some(missing_file()), ..heartbeat(1, 2, State::Preparing) }
}

/// Two pods whose first world trains.
fn training() -> Quorum {
    let mut quorum = Quorum::new(2, 0);
    quorum.retry_pods(false);
    for pod in 0..2 {
        quorum.record_heartbeat(at(0), &heartbeat(pod, 1, IDLE)).unwrap();
    }
    assert_eq!(decide(&mut quorum, at(0)), Decision::Propose(1));
    let trains = Heartbeat { trains: true, ..heartbeat(0, 1, State::Running(1)) };
    quorum.record_heartbeat(at(1), &trains).unwrap();
    quorum.record_heartbeat(at(1), &heartbeat(1, 1, State::Running(1))).unwrap();
    assert_eq!(quorum.decide(at(1)), Decision::Keep(1));
    quorum
}

#[test]
fn bad_data_before_the_first_step_ends_the_job() {
    let mut quorum = Quorum::new(2, 0);
    quorum.retry_pods(false);
    quorum.record_heartbeat(at(0), &unprepared()).unwrap();
    assert_eq!(quorum.decide(at(0)), Decision::ProposeVerdict(missing_file()));
    // Workers that load their data do not train yet.
    let mut quorum = formed(2);
    quorum.retry_pods(false);
    quorum.record_heartbeat(at(1), &heartbeat(0, 1, State::Running(1))).unwrap();
    quorum.record_heartbeat(at(1), &failing(1, 1, FailureReason::Data)).unwrap();
    assert!(matches!(quorum.decide(at(1)), Decision::ProposeVerdict(_)));
}

#[test]
fn a_joiner_with_bad_data_waits_and_is_named() {
    let mut quorum = training();
    for second in 2..100 {
        quorum.record_heartbeat(at(second), &heartbeat(0, 1, State::Idle { ended: Some(1) })).unwrap();
        quorum.record_heartbeat(at(second), &unprepared()).unwrap();
        let decision = quorum.decide(at(second));
        if second == 2 {
            assert!(matches!(decision, Decision::End { generation: 1, .. }));
        } else {
            assert_eq!(decision, Decision::Wait { missing: vec![1] });
        }
        let failure = quorum.current_failure(at(second)).unwrap();
        let expected = "pod 1 cannot join: cannot read /data/x: no such file; it retries every 30 s";
        assert_eq!((failure.reason, failure.message.as_str()), (FailureReason::Data, expected));
    }
    // A person has restored the file.
    quorum.record_heartbeat(at(100), &heartbeat(0, 1, State::Idle { ended: Some(1) })).unwrap();
    quorum.record_heartbeat(at(100), &heartbeat(1, 2, IDLE)).unwrap();
    assert_eq!(decide(&mut quorum, at(100)), Decision::Propose(2));
    assert_eq!((quorum.current_failure(at(100)), quorum.verdict()), (None, None));
}

#[test]
fn a_checkpoint_shows_that_the_job_has_trained() {
    let mut quorum = Quorum::new(2, 5);
    quorum.retry_pods(true);
    quorum.record_heartbeat(at(0), &heartbeat(0, 1, IDLE)).unwrap();
    quorum.record_heartbeat(at(0), &unprepared()).unwrap();
    assert_eq!(quorum.decide(at(0)), Decision::Wait { missing: vec![1] });
    assert_eq!(quorum.current_failure(at(20)), None, "pod 1 is silent");
}

/// Its worker finds that a file is missing which the agent does not read.
#[test]
fn workers_with_bad_data_start_again_after_a_pause() {
    for reason in [FailureReason::Data, FailureReason::Configuration] {
        let mut quorum = training();
        for second in 2..=32 {
            let idle = heartbeat(0, 1, State::Idle { ended: Some(1) });
            quorum.record_heartbeat(at(second), &idle).unwrap();
            quorum.record_heartbeat(at(second), &failing(1, 1, reason)).unwrap();
            let decision = decide(&mut quorum, at(second));
            match second {
                2 => assert!(matches!(decision, Decision::End { generation: 1, .. })),
                32 => assert_eq!(decision, Decision::Propose(2)),
                _ => assert_eq!(decision, Decision::Wait { missing: Vec::new() }),
            }
        }
        assert_eq!(quorum.current_failure(at(32)).unwrap().reason, reason);
    }
}

#[test]
fn a_generation_that_cannot_be_recorded_later_is_tried_again() {
    let mut quorum = training();
    quorum.record_heartbeat(at(2), &heartbeat(0, 1, State::Idle { ended: Some(1) })).unwrap();
    quorum.record_heartbeat(at(2), &heartbeat(1, 1, State::Idle { ended: Some(1) })).unwrap();
    assert!(matches!(quorum.decide(at(2)), Decision::End { .. }));
    assert_eq!(quorum.decide(at(2)), Decision::Propose(2));
    quorum.abandon(at(2), &Failure::new(FailureReason::Data, "cannot write generation"));
    assert_eq!(quorum.decide(at(3)), Decision::Wait { missing: Vec::new() });
    for pod in 0..2 {
        quorum.record_heartbeat(at(32), &heartbeat(pod, 1, State::Idle { ended: Some(1) })).unwrap();
    }
    assert_eq!(decide(&mut quorum, at(32)), Decision::Propose(2));
}

#[test]
fn other_final_failures_end_a_job_that_has_trained() {
    let mut quorum = training();
    quorum.record_heartbeat(at(2), &failing(1, 1, FailureReason::Numerical)).unwrap();
    assert!(matches!(quorum.decide(at(2)), Decision::ProposeVerdict(_)));
}

/// On a workstation, the person waits for the command.
#[test]
fn without_retries_bad_data_always_ends_the_job() {
    let mut quorum = formed(1);
    let trains = Heartbeat { trains: true, ..heartbeat(0, 1, State::Running(1)) };
    quorum.record_heartbeat(at(1), &trains).unwrap();
    quorum.record_heartbeat(at(2), &failing(0, 1, FailureReason::Data)).unwrap();
    assert!(matches!(quorum.decide(at(2)), Decision::ProposeVerdict(_)));
}
