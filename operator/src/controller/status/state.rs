//! `status.state`: a summary of the conditions. Pure.

use datjob_api::report::Phase;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// No pod runs.
    Pending,
    /// The first world is forming.
    Starting,
    /// A world is training.
    Running,
    /// A world runs the final evaluation.
    Evaluating,
    /// A world is forming again.
    Restarting,
    /// The job is complete.
    Complete,
    /// The job failed.
    Failed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Starting,
        Self::Running,
        Self::Evaluating,
        Self::Restarting,
        Self::Complete,
        Self::Failed,
    ];

    /// The value of `status.state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Evaluating => "Evaluating",
            Self::Restarting => "Restarting",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }

    /// Parses `status.state`; unknown values are Pending.
    pub fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or(Self::Pending)
    }
}

/// Whether a world has formed in this phase.
pub(super) fn is_formed(phase: Phase) -> bool {
    match phase {
        Phase::Training | Phase::Evaluating | Phase::Succeeded => true,
        Phase::Preparing | Phase::Forming | Phase::Failed => false,
    }
}
