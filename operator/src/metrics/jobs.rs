//! Gauges of the jobs in the scope of the operator.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::controller::status::State;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// Numbers of jobs, measured when metrics are read.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    /// State of each job that this installation manages.
    pub states: Vec<State>,
    /// Number of these jobs that wait for a person.
    pub stalled: usize,
    /// Number of jobs that another installation manages.
    pub foreign: usize,
}

/// The gauges of [`Jobs`].
#[derive(Debug, Default)]
pub(super) struct JobGauges {
    by_state: Family<StateLabel, Gauge>,
    stalled: Gauge,
    foreign: Gauge,
}

impl JobGauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        registry.register(
            "jobs",
            "Number of jobs that this installation manages, by state",
            gauges.by_state.clone(),
        );
        registry.register(
            "stalled_jobs",
            "Number of unfinished jobs with the condition Stalled",
            gauges.stalled.clone(),
        );
        registry.register(
            "foreign_jobs",
            "Number of jobs in the scope that another installation manages",
            gauges.foreign.clone(),
        );
        gauges
    }

    pub(super) fn set(&self, jobs: &Jobs) {
        for state in State::ALL {
            let count = jobs.states.iter().filter(|&&other| other == state).count();
            self.by_state.get_or_create(&StateLabel { state: state.as_str() }).set(count as i64);
        }
        self.stalled.set(jobs.stalled as i64);
        self.foreign.set(jobs.foreign as i64);
    }
}
