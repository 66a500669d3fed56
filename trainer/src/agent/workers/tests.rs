use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use datjob_adversarial::evaluate::Work;

use super::*;

#[tokio::test]
async fn a_log_that_is_not_kept_is_a_warning() {
    let end = End {
        status: Ok(ExitStatus::from_raw(1 << 8)),
        log_tail: vec!["out of luck".into()],
        log_file: Some(Err("the log of rank 3 is not kept: the volume is full".into())),
    };
    let (events, _inbox) = mpsc::unbounded_channel();
    let (mut workers, board) = (Workers::new(events), Board::new("uid", "pod", 1));
    workers.state = State::Running(2);
    assert!(workers.note(WorkersEvent { generation: 2, rank: 3, what: What::Ended(end) }, &board).await);
    let failure = workers.failure().unwrap();
    assert_eq!((failure.reason, &failure.log_file), (FailureReason::Crash, &None));
    assert_eq!(failure.log_tail, ["out of luck"]);
    assert_eq!(board.report().warnings, ["the log of rank 3 is not kept: the volume is full"]);
}

#[tokio::test]
async fn a_fault_of_storage_is_reported_until_it_passes_or_the_worker_ends() {
    let (events, _inbox) = mpsc::unbounded_channel();
    let (mut workers, board) = (Workers::new(events), Board::new("uid", "pod", 1));
    workers.state = State::Running(2);
    let trouble = |since| StorageTrouble { error: "EIO".into(), message: format!("since {since}"), since };
    let storage = |rank, trouble| {
        let what = What::Sent(Event::Storage(trouble));
        WorkersEvent { generation: 2, rank, what }
    };
    assert!(workers.note(storage(0, Some(trouble(9))), &board).await);
    workers.note(storage(1, Some(trouble(5))), &board).await;
    assert_eq!(workers.storage_trouble(), Some(&trouble(5)));
    workers.note(storage(1, None), &board).await;
    assert_eq!(workers.storage_trouble(), Some(&trouble(9)));
    // Rank 1 loses its connection to rank 0, which waits.
    let lost = Failure::of_rank(FailureReason::Communication, 1, "timed out");
    let sent = What::Sent(Event::Failed(lost));
    workers.note(WorkersEvent { generation: 2, rank: 1, what: sent }, &board).await;
    let end = End { status: Ok(ExitStatus::from_raw(1 << 8)), log_tail: Vec::new(), log_file: None };
    workers.note(WorkersEvent { generation: 2, rank: 1, what: What::Ended(end) }, &board).await;
    let failure = workers.failure().unwrap();
    assert_eq!((failure.reason, failure.message.as_str()), (FailureReason::Storage, "since 9"));
    assert_eq!(workers.storage_trouble(), None, "all have ended");
}

#[tokio::test]
async fn the_end_of_a_worker_that_hung_is_a_hang() {
    let (events, _inbox) = mpsc::unbounded_channel();
    let (mut workers, board) = (Workers::new(events), Board::new("uid", "pod", 1));
    workers.state = State::Running(2);
    workers.hung.insert(1, "the worker has sent no pulse for 61 s".into());
    // A worker that is killed may have reported that it lost its peer.
    let lost = Failure::of_rank(FailureReason::Communication, 1, "timed out");
    let sent = What::Sent(Event::Failed(lost));
    workers.note(WorkersEvent { generation: 2, rank: 1, what: sent }, &board).await;
    let end = End { status: Ok(ExitStatus::from_raw(9)), log_tail: Vec::new(), log_file: None };
    workers.note(WorkersEvent { generation: 2, rank: 1, what: What::Ended(end) }, &board).await;
    let failure = workers.failure().unwrap();
    assert_eq!((failure.reason, failure.rank), (FailureReason::Hang, Some(1)));
    assert_eq!(failure.message, "the worker has sent no pulse for 61 s");
}

/// Only rank 0 reports progress, and this pod does not have it.
#[tokio::test]
async fn workers_of_every_pod_can_leave_while_they_train() {
    let (events, _inbox) = mpsc::unbounded_channel();
    let (mut workers, board) = (Workers::new(events), Board::new("uid", "pod", 1));
    workers.state = State::Running(2);
    let training =
        |trains| WorkersEvent { generation: 2, rank: 3, what: What::Sent(Event::Training(trains)) };
    assert!(!workers.can_leave());
    workers.note(training(true), &board).await;
    assert!(workers.can_leave());
    workers.note(training(false), &board).await;
    assert!(!workers.can_leave());
    workers.note(training(true), &board).await;
    workers.state = State::Idle { ended: Some(2) };
    assert!(!workers.can_leave());
}

#[test]
fn a_validation_is_a_part_of_the_training() {
    let board = Board::new("uid", "pod", 1);
    let evaluating = |part| {
        Event::Evaluating(EvaluationState {
            part,
            ..EvaluationState::certification(Work { done: 0, total: 1, known: None })
        })
    };
    apply_event(evaluating(EvaluationPart::Validation), &board);
    assert_eq!(board.report().phase, Phase::Training);
    apply_event(evaluating(EvaluationPart::Certification), &board);
    assert_eq!(board.report().phase, Phase::Evaluating);
}
