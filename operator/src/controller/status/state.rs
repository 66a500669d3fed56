//! The one word for people.

use datjob_api::report::Phase;

/// What a job is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// No pod runs yet.
    Pending,
    /// Pods run, the first world forms.
    Starting,
    /// A world trains.
    Running,
    /// The final evaluation.
    Evaluating,
    /// A world forms again.
    Restarting,
    /// The results stand in the status.
    Complete,
    /// Over without results.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Starting,
        Self::Running,
        Self::Evaluating,
        Self::Restarting,
        Self::Complete,
        Self::Failed,
    ];

    /// The word as the status writes it.
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

    /// The state that a status names; Pending where it names none.
    pub fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or(Self::Pending)
    }
}

/// Whether a world is formed in this phase.
pub(super) fn is_formed(phase: Phase) -> bool {
    match phase {
        Phase::Training | Phase::Evaluating | Phase::Succeeded => true,
        Phase::Preparing | Phase::Forming | Phase::Failed => false,
    }
}
