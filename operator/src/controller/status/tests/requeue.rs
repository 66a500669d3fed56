//! When a job is reconciled again although nothing changed.

use super::*;

fn seconds(outcome: &Outcome) -> u64 {
    outcome.requeue.unwrap().as_secs()
}

impl JobSimulation {
    fn next(&self, applied: &Applied) -> Outcome {
        status(&self.job, applied, Timestamp::from_second(self.second).unwrap())
    }

    fn next_with(&self, report: ReportState) -> Outcome {
        self.next(&active(AttemptAction::Keep, observation(1, self.pods.clone(), report)))
    }
}

#[test]
fn the_resources_of_a_finished_job_are_released_at_once() {
    let mut sim = JobSimulation::new();
    let invalid = InvalidSpec::new("spec.pod.resources", "invalid");
    assert_eq!(seconds(&sim.next(&Applied::Rejected(invalid))), 1);
    // All pods run, no world forms, and the limit is reached.
    sim.job.spec.lifecycle.max_restarts = 0;
    sim.start(1);
    let forming = |report: &mut Report| {
        report.phase = Phase::Forming;
        report.generation = 0;
    };
    sim.report(forming);
    sim.second += 2_000;
    let mut report = Report { attempt: 1, ..sim.default_report() };
    forming(&mut report);
    let outcome = sim.next_with(ReportState::Received(Arc::new(report)));
    assert_eq!((outcome.status.state.as_str(), seconds(&outcome)), ("Failed", 1));
}

#[test]
fn a_waiting_job_is_checked_at_growing_intervals_and_at_its_deadline() {
    let mut sim = JobSimulation::new();
    sim.start(1);
    assert_eq!(seconds(&sim.next_with(ReportState::NoPod)), 5);
    sim.second += 600;
    assert!((100..=110).contains(&seconds(&sim.next_with(ReportState::NoPod))));
    sim.second += 1_195;
    assert_eq!(seconds(&sim.next_with(ReportState::NoPod)), 6, "5 s before the startup deadline");
    // The deadline has passed, but the report cannot be read.
    sim.second += 1_000;
    assert!((300..=330).contains(&seconds(&sim.next_with(unread(1)))));
}

#[test]
fn a_training_job_waits_for_changes() {
    let sim = JobSimulation::training();
    let report = Report { attempt: 1, ..sim.default_report() };
    assert!(seconds(&sim.next_with(ReportState::Received(Arc::new(report)))) >= 600);
}
