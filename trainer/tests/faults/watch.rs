//! How long a job stands still, by the reports of pod 0.

use std::{
    mem,
    time::{Duration, Instant},
};

use datjob_api::report::{Phase, Report};

/// How far a job is.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// Completed optimizer steps.
    step: u64,
    /// Images that the running evaluation has evaluated, and iterations of its attack.
    evaluated: (u64, u64),
    succeeded: bool,
}

/// Records when a job makes progress.
#[derive(Debug)]
pub(crate) struct Watch {
    position: Position,
    last_move: Instant,
    longest_stall: Duration,
    moves: u32,
}

impl Watch {
    /// Begins to watch a job that starts.
    pub(crate) fn start() -> Self {
        let last_move = Instant::now();
        Self { position: Position::default(), last_move, longest_stall: Duration::ZERO, moves: 0 }
    }

    /// Records a report.
    pub(crate) fn record(&mut self, report: &Report) {
        let succeeded = report.phase == Phase::Succeeded;
        let step = report.progress.as_ref().map(|progress| progress.step);
        // The agent of a pod 0 that was just replaced does not know the progress.
        let Some(step) = step.or(succeeded.then_some(self.position.step)) else { return };
        let evaluation = report.evaluation.as_ref();
        let evaluated = evaluation.map_or((0, 0), |evaluation| (evaluation.images, evaluation.iteration));
        let stall = self.longest_stall();
        let before = mem::replace(&mut self.position, Position { step, evaluated, succeeded });
        // A world that resumes from a checkpoint is at an earlier step.
        if step != before.step || evaluated > before.evaluated || succeeded != before.succeeded {
            self.longest_stall = stall;
            self.last_move = Instant::now();
            self.moves += 1;
        }
    }

    /// Forgets the stalls until now.
    pub(crate) fn restart(&mut self) {
        self.last_move = Instant::now();
        self.longest_stall = Duration::ZERO;
    }

    /// The longest time without progress since the start or the last [`restart`](Self::restart).
    pub(crate) fn longest_stall(&self) -> Duration {
        if self.position.succeeded {
            self.longest_stall
        } else {
            self.longest_stall.max(self.last_move.elapsed())
        }
    }

    /// How many times the job made progress.
    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    /// Whether the job has succeeded.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.position.succeeded
    }
}
