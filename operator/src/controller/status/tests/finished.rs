//! Finished jobs, also those whose conditions an operator of another release changed.

use super::*;
use crate::conditions::UNDECODABLE;

impl JobSimulation {
    fn complete() -> Self {
        let mut sim = Self::training();
        sim.report(|report| {
            report.phase = Phase::Succeeded;
            report.results = Some(results());
        });
        assert_eq!(sim.status().state, "Complete");
        sim
    }

    fn failed() -> Self {
        let mut sim = Self::new();
        sim.apply(&Applied::Rejected(InvalidSpec::new("spec.pod", "invalid")));
        assert_eq!(sim.status().state, "Failed");
        sim
    }

    /// Marks the job as an operator does that cannot decode it.
    fn mark_undecodable(&mut self) {
        let status = self.job.status.as_mut().unwrap();
        for (kind, value) in [(READY, false), (STALLED, true)] {
            conditions::set(status, kind, value, UNDECODABLE, "?", 1, Timestamp::UNIX_EPOCH);
        }
    }

    fn reconcile_finished(&mut self) -> &DatJobStatus {
        self.second += 60;
        self.events.clear();
        self.apply(&Applied::Finished)
    }
}

#[test]
fn a_finished_job_changes_only_its_observed_generation() {
    for mut sim in [JobSimulation::complete(), JobSimulation::failed()] {
        let before = sim.status().clone();
        assert_eq!(*sim.reconcile_finished(), before);
        sim.job.metadata.generation = Some(2);
        let mut expected = before;
        expected.observed_generation = 2;
        for condition in &mut expected.conditions {
            condition.observed_generation = Some(2);
        }
        assert_eq!(*sim.reconcile_finished(), expected);
        assert_eq!(sim.events, []);
    }
}

#[test]
fn conditions_that_contradict_the_outcome_are_rebuilt() {
    for mut sim in [JobSimulation::complete(), JobSimulation::failed()] {
        let before = sim.status().clone();
        sim.mark_undecodable();
        let after = sim.reconcile_finished().clone();
        let essential = |status: &DatJobStatus| -> Vec<_> {
            let one = |kind| {
                let found = conditions::find(status, kind).unwrap();
                (found.status.clone(), found.reason.clone(), found.message.clone())
            };
            [READY, RECONCILING, STALLED, FINISHED, COMPLETE, FAILED].map(one).into()
        };
        assert_eq!(essential(&after), essential(&before));
        assert_eq!(
            DatJobStatus { conditions: vec![], ..after.clone() },
            DatJobStatus { conditions: vec![], ..before }
        );
        assert_eq!(*sim.reconcile_finished(), after, "once");
        assert_eq!(sim.events, []);
    }
}

#[test]
fn a_job_with_a_completion_time_stays_finished_without_its_conditions() {
    for (mut sim, kind) in [(JobSimulation::complete(), COMPLETE), (JobSimulation::failed(), FAILED)] {
        sim.job.status.as_mut().unwrap().conditions.clear();
        assert!(conditions::is_finished(sim.status()));
        sim.reconcile_finished();
        assert_eq!(sim.condition(kind).0, "True");
        assert_eq!(sim.condition(FINISHED).0, "True");
        assert_eq!(sim.condition(STALLED).0, if kind == FAILED { "True" } else { "False" });
    }
}
