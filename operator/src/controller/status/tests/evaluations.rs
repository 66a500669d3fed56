//! Evaluations on the validation split: the best one, and catastrophic overfitting.

use super::*;

/// Nine of ten clean images are correct, and `correct` under the attack.
fn accuracy(epoch: u32, correct: u64, overfitting: Option<&str>) -> Accuracy {
    Accuracy {
        epoch,
        split: Split::Validation,
        clean: Count { correct: 9, total: 10 },
        robust: AttackCount::new("pgd-10", Count { correct, total: 10 }),
        averaging: None,
        single_step: None,
        overfitting: overfitting.map(str::to_owned),
    }
}

#[test]
fn catastrophic_overfitting_sets_a_condition_and_emits_an_event() {
    let mut sim = JobSimulation::training();
    let sentence = "Epoch 3: catastrophic overfitting to the single-step attack";
    for (epoch, overfitting, value) in
        [(2, None, None), (3, Some(sentence), Some("True")), (4, None, Some("False"))]
    {
        sim.report(|report| {
            report.accuracy = Some(Accuracy {
                single_step: Some(Count { correct: 9, total: 10 }),
                ..accuracy(epoch, 1, overfitting)
            });
        });
        let found = conditions::find(sim.status(), OVERFITTING).map(|one| one.status.clone());
        assert_eq!(found.as_deref(), value, "epoch {epoch}");
    }
    assert_eq!(sim.reasons().iter().filter(|reason| **reason == "CatastrophicOverfitting").count(), 1);
}

#[test]
fn only_a_higher_robust_accuracy_emits_an_event() {
    let mut sim = JobSimulation::training();
    let mut evaluate = |epoch: u32, correct: u64| {
        sim.report(|report| report.accuracy = Some(accuracy(epoch, correct, None)));
    };
    evaluate(1, 5);
    evaluate(2, 4);
    evaluate(3, 6);
    assert_eq!(sim.status().best.as_ref().unwrap().epoch, 3);
    let notes: Vec<_> = sim.events.iter().map(|event| (event.reason, event.key.as_str())).collect();
    assert_eq!(notes, [("Evaluated", "epoch 1"), ("Evaluated", "epoch 3")]);
}

/// Epochs may be shorter than the time between two reports, and an operator may be away.
#[test]
fn evaluations_between_two_reports_are_not_lost() {
    let mut sim = JobSimulation::training();
    let mut evaluate = |latest, best, overfitting| {
        sim.report(|report| {
            report.accuracy = Some(latest);
            report.best = Some(best);
            report.overfitting = overfitting;
        });
    };
    evaluate(accuracy(1, 5, None), accuracy(1, 5, None), None);
    let collapse = || accuracy(3, 0, Some("Epoch 3: catastrophic overfitting"));
    evaluate(accuracy(4, 6, None), accuracy(2, 7, None), Some(collapse()));
    evaluate(accuracy(5, 6, None), accuracy(2, 7, None), Some(collapse()));
    let status = sim.status();
    assert_eq!(status.best.as_ref().map(|best| (best.epoch, best.robust.correct)), Some((2, 7)));
    assert_eq!(
        sim.condition(OVERFITTING),
        ("False", "Recovered", "Epoch 4: catastrophic overfitting is no longer detected.")
    );
    let notes: Vec<_> = sim.events.iter().map(|event| (event.reason, event.key.as_str())).collect();
    let expected = [("Evaluated", "epoch 1"), ("Evaluated", "epoch 2"), (OVERFITTING, "epoch 3")];
    assert_eq!(notes, expected);

    // A new agent knows the best epoch from the checkpoint, and evaluates none before the test set.
    sim.report(|report| report.best = Some(accuracy(6, 8, None)));
    assert_eq!(sim.status().best.as_ref().map(|best| best.epoch), Some(6));
    // The trainer's numbers are not trusted.
    sim.report(|report| report.accuracy = Some(accuracy(u32::MAX, 1, None)));
    sim.report(|report| {
        report.accuracy = Some(accuracy(u32::MAX, 1, None));
        report.overfitting = Some(collapse());
    });
}

#[test]
fn the_status_has_the_running_evaluation_until_it_ends() {
    let mut sim = JobSimulation::training();
    let evaluation = EvaluationProgress {
        part: EvaluationPart::Test,
        attack: "x".repeat(1_000),
        iteration: 3,
        iterations: 20,
        images: 250,
        robust: Some(120),
        total: 5_000,
        remaining_seconds: Some(60),
    };
    let running = |report: &mut Report| {
        report.phase = Phase::Evaluating;
        report.evaluation = Some(evaluation.clone());
    };
    let seen = sim.report(running).evaluation.clone().unwrap();
    assert_eq!((seen.images, seen.robust, seen.remaining_seconds), (250, Some(120), Some(60)));
    assert!(seen.attack.len() < 300, "names of a trainer are bounded");
    assert_eq!(sim.report(|_| {}).evaluation, None);
    sim.report(running);
    assert_eq!(sim.observe(Vec::new(), ReportState::NoPod).evaluation, None, "the pod is gone");
}
