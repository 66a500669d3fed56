use datjob_adversarial::evaluate::Work;
use datjob_api::report::{AttackCount, Count, Timing};

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn progress(epoch: u32, step: u64) -> Progress {
    Progress {
        epoch,
        epochs: 3,
        step,
        percent: 1,
        images_per_second: 10.0,
        remaining_seconds: 600,
        loss: 2.5,
        learning_rate: 0.1,
    }
}

fn trained(epoch: u32, step: u64) -> Event {
    Event::Progress(progress(epoch, step))
}

fn timing(epoch_seconds: f64) -> Event {
    Event::Timing(Timing {
        epoch_seconds,
        attack_seconds: 0.0,
        communication_seconds: 0.0,
        bytes_per_step: 0,
        data_seconds: 0.0,
        peak_gpu_memory_bytes: None,
    })
}

fn evaluation(part: EvaluationPart, done: u64) -> EvaluationState {
    let work = Work { done: done * 20, total: 2_000, known: (done > 0).then_some(0) };
    EvaluationState {
        part,
        attack: "pgd-20".into(),
        iteration: 0,
        iterations: 20,
        done,
        robust: Some(done / 2),
        total: 100,
        work,
    }
}

fn evaluating(part: EvaluationPart, done: u64) -> Event {
    Event::Evaluating(evaluation(part, done))
}

#[test]
fn training_has_a_line_a_minute_and_one_at_the_end_of_an_epoch() {
    let mut log = ProgressLog::default();
    assert_eq!(log.due(at(1_000)), None, "nothing is known");
    // An event every second, as workers send them.
    let mut lines = Vec::new();
    for second in 1..=150 {
        lines.extend(log.record(at(second), &trained(0, second)).map(|line| (second, line)));
        lines.extend(log.due(at(second)).map(|line| (second, line)));
    }
    let expected = [61, 121].map(|second| (second, Line::Training(progress(0, second))));
    assert_eq!(lines, expected);
    assert_eq!(log.record(at(151), &trained(1, 151)), None);
    assert_eq!(log.record(at(151), &timing(150.0)), Some(Line::Epoch(progress(1, 151), 150.0)));
    assert_eq!(log.due(at(210)), None, "the line of the epoch counts");
    // Steps that hang are seen by a step that does not change.
    assert_eq!(log.due(at(211)), Some(Line::Training(progress(1, 151))));
    assert_eq!(log.due(at(271)), Some(Line::Training(progress(1, 151))));
}

#[test]
fn a_validation_has_a_line_at_its_end_and_every_minute() {
    let mut log = ProgressLog::default();
    log.record(at(0), &trained(1, 9));
    assert_eq!(log.record(at(1), &evaluating(EvaluationPart::Validation, 0)), None);
    assert_eq!(log.record(at(31), &evaluating(EvaluationPart::Validation, 25)), None);
    let line = |done, remaining| Line::Evaluating(evaluation(EvaluationPart::Validation, done), remaining);
    assert_eq!(log.due(at(61)), Some(line(25, Some(at(180)))));
    let accuracy = Accuracy {
        epoch: 1,
        split: Split::Validation,
        clean: Count { correct: 9, total: 10 },
        robust: AttackCount { attack: "pgd-20".into(), correct: 5, total: 10 },
        averaging: None,
        single_step: None,
        overfitting: None,
    };
    let event = Event::Accuracy(accuracy.clone());
    assert_eq!(log.record(at(70), &event), Some(Line::Accuracy(accuracy)));
    assert_eq!(log.due(at(130)), Some(Line::Training(progress(1, 9))));
}

#[test]
fn each_part_of_the_final_evaluation_has_a_line_at_its_begin() {
    let mut log = ProgressLog::default();
    let begin = |part| Some(Line::Evaluating(evaluation(part, 0), None));
    assert_eq!(log.record(at(0), &evaluating(EvaluationPart::Test, 0)), begin(EvaluationPart::Test));
    assert_eq!(log.record(at(1), &evaluating(EvaluationPart::Test, 50)), None);
    // The sweep takes the test set once more.
    assert_eq!(log.record(at(2), &evaluating(EvaluationPart::Test, 0)), begin(EvaluationPart::Test));
    assert_eq!(
        log.record(at(3), &evaluating(EvaluationPart::Certification, 0)),
        begin(EvaluationPart::Certification)
    );
}

#[test]
fn the_report_has_the_running_evaluation() {
    let mut log = ProgressLog::default();
    log.record(at(0), &evaluating(EvaluationPart::Test, 0));
    assert_eq!(log.evaluation(at(3)).unwrap().remaining_seconds, None);
    // In the middle of a run on the first batch, no image is done.
    let work = Work { done: 500, total: 2_000, known: Some(0) };
    let state = EvaluationState { iteration: 5, work, ..evaluation(EvaluationPart::Test, 0) };
    log.record(at(10), &Event::Evaluating(state));
    let progress = log.evaluation(at(10)).unwrap();
    assert_eq!((progress.iteration, progress.iterations, progress.images), (5, 20, 0));
    assert_eq!(progress.remaining_seconds, Some(30));
    log.record(at(11), &trained(1, 9));
    assert_eq!(log.evaluation(at(11)), None);
}

#[test]
fn the_time_left_follows_from_what_is_done() {
    let remaining = |known, done| {
        let work = Work { done, total: 100, known };
        remaining_evaluation(&EvaluationState { work, ..evaluation(EvaluationPart::Test, 0) }, at(8))
    };
    assert_eq!([remaining(None, 50), remaining(Some(0), 0), remaining(Some(90), 90)], [None; 3]);
    assert_eq!(remaining(Some(0), 40), Some(at(12)));
    assert_eq!(remaining(Some(90), 94), Some(at(12)), "90 were known");
    assert_eq!(remaining(Some(0), 110), Some(at(0)));
    let texts = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 2 * 86_400 + 4 * 3_600].map(|s| eta(Some(at(s))));
    assert_eq!(texts, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "2d04h"]);
    assert_eq!(eta(None), "unknown");
}
