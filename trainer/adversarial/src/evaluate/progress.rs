//! How far an evaluation is: said before every run of an attack and at every pass of the network in it.

use std::{
    cell::{Cell, RefCell},
    ops::{ControlFlow, Range},
};

use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use super::{Classifier, EvaluateError, Evaluation, Stage};

/// How far an evaluation is, on this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationProgress<'a> {
    /// The run of an attack; `None` at the end.
    pub run: Option<RunProgress<'a>>,
    /// Number of images that are evaluated under all attacks.
    pub done: usize,
    /// Number of these images that are robust under all attacks.
    pub robust: u64,
    /// Number of all images.
    pub total: usize,
    /// The work that is done.
    pub work: Work,
}

/// How far a run of an attack on a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunProgress<'a> {
    /// Name of the attack.
    pub attack: &'a str,
    /// Name of the stage.
    pub stage: &'a str,
    /// Number of iterations that have begun; 0 before the run.
    pub iteration: u64,
    /// Number of iterations of the run.
    pub iterations: u64,
}

/// Work of an evaluation. Its unit is an iteration of an attack on an image; images that an attack has already fooled count as
/// if they were attacked to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is done.
    pub done: u64,
    /// All.
    pub total: u64,
    /// What was done when the first result was computed; `None` before. It is known from an interrupted evaluation and took no
    /// time.
    pub known: Option<u64>,
}

/// Receives the progress of an evaluation. It may cancel the evaluation.
pub type OnProgress<'a> = &'a mut dyn FnMut(EvaluationProgress<'_>) -> ControlFlow<()>;

/// Follows an evaluation, and says how far it is.
pub(super) struct ProgressMeter<'a, 'p> {
    on_progress: OnProgress<'p>,
    progress: EvaluationProgress<'a>,
    /// Number of images of the batch.
    batch: u64,
    /// Iterations of all attacks on an image.
    iterations: u64,
    /// Iterations of the earlier runs on the batch.
    earlier: u64,
}

impl<'a, 'p> ProgressMeter<'a, 'p> {
    /// An evaluation of `total` images that has not begun.
    pub(super) fn new(evaluation: &Evaluation<'a>, total: usize, on_progress: OnProgress<'p>) -> Self {
        let stages = evaluation.attacks.iter().flat_map(|attack| &attack.stages);
        let iterations = stages.map(|stage| stage.method.iterations() * u64::from(stage.runs)).sum::<u64>();
        let work = Work { done: 0, total: iterations * total as u64, known: None };
        let progress = EvaluationProgress { run: None, done: 0, robust: 0, total, work };
        Self { on_progress, progress, batch: 0, iterations, earlier: 0 }
    }

    /// Begins a batch of `images` images.
    pub(super) fn begin_batch(&mut self, images: usize) {
        self.batch = images as u64;
        self.earlier = 0;
    }

    /// Begins a run of a stage.
    pub(super) fn begin_run(&mut self, attack: &'a str, stage: &'a Stage) -> Result<(), EvaluateError> {
        let iterations = stage.method.iterations();
        self.progress.run = Some(RunProgress { attack, stage: &stage.name, iteration: 0, iterations });
        self.report()
    }

    /// Its result is not known and will be computed.
    pub(super) fn begin_computing(&mut self) {
        let done = self.progress.work.done;
        self.progress.work.known.get_or_insert(done);
    }

    /// A run of this stage is over, or was left out.
    pub(super) fn end_run(&mut self, stage: &Stage) {
        self.earlier += stage.method.iterations();
        self.set_done(0);
    }

    /// Ends the batch; `robust` images of all batches so far are robust.
    pub(super) fn end_batch(&mut self, robust: u64) {
        let Self { progress, batch, iterations, earlier, .. } = self;
        progress.done += *batch as usize;
        progress.robust = robust;
        (*batch, *earlier) = (0, 0);
        progress.work.done = progress.done as u64 * *iterations;
    }

    /// The end of the evaluation.
    pub(super) fn finish(&mut self) -> Result<(), EvaluateError> {
        self.progress.run = None;
        self.report()
    }

    /// The passes of the network on these rows of `images` images that are attacked.
    pub(super) fn iterated(&mut self, rows: &Range<usize>, images: usize, passes: u64) -> ControlFlow<()> {
        let Some(run) = &mut self.progress.run else { return ControlFlow::Continue(()) };
        let (before, now) = (rows.start as u64 * run.iterations, rows.len() as u64 * passes);
        // A batch that does not fit into memory begins anew, in smaller parts.
        let iteration = ((before + now) / images.max(1) as u64).clamp(run.iteration, run.iterations);
        run.iteration = iteration;
        self.set_done(iteration);
        (self.on_progress)(self.progress)
    }

    fn set_done(&mut self, iteration: u64) {
        let images = self.progress.done as u64;
        self.progress.work.done = images * self.iterations + self.batch * (self.earlier + iteration);
    }

    fn report(&mut self) -> Result<(), EvaluateError> {
        match (self.on_progress)(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvaluateError::Cancelled),
        }
    }
}

/// A classifier that says each of its passes before it begins.
pub(super) struct Observed<'a, F> {
    classifier: &'a dyn Classifier,
    passes: Cell<u64>,
    on_pass: RefCell<F>,
}

impl<'a, F: FnMut(u64) -> ControlFlow<()>> Observed<'a, F> {
    /// `on_pass` receives the number of the pass, counted from 1. It may cancel the attack.
    pub(super) fn new(classifier: &'a dyn Classifier, on_pass: F) -> Self {
        Self { classifier, passes: Cell::new(0), on_pass: RefCell::new(on_pass) }
    }
}

impl<F: FnMut(u64) -> ControlFlow<()>> Classifier for Observed<'_, F> {
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.passes.set(self.passes.get() + 1);
        if (self.on_pass.borrow_mut())(self.passes.get()).is_break() {
            return Err(TchError::Torch("the evaluation was cancelled".to_owned()));
        }
        self.classifier.logits(images)
    }

    fn prepare_input(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.classifier.prepare_input(images)
    }
}
