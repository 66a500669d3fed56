//! One rank's shard of an evaluation: counts of the images that are classified correctly, clean and attacked.
//!
//! The images are split, in the given order, into batches of [`BATCH`]; rank r of W takes the whole batches r, r + W,
//! r + 2W, …. Logits depend slightly on the batch size, because kernels do. So the composition of a batch does not depend
//! on the world size: it holds those of its images that are still robust. (Logits may also depend on the number of threads
//! of a process, and on the memory of a GPU: a batch that does not fit is computed in parts.)

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use datjob_c10d::libtorch_message;
use datjob_data::{DataError, ImageBatch, Images, Loader};
use tch::{Device, Kind, TchError, Tensor, no_grad};
use thiserror::Error;

use crate::{
    attack::losses_and_gradient,
    model::{Mode, Network},
    objective::summed_cross_entropy,
    parts::Parts,
    shard::Shard,
    tensors::float_batch,
};

mod attack;
mod batch;
mod counts;
mod progress;
mod results;
mod sanity_warnings;
mod sweep;
mod units;

pub use attack::{EvalAttack, Method, Stage};
pub use counts::{ClassCounts, Counts, CountsError};
pub use progress::{EvaluationProgress, OnProgress, RunProgress, Work};
pub use results::attack_results;
pub use sanity_warnings::sanity_warnings;
pub use sweep::{sweep_attacks, sweep_results};
pub use units::{NoUnitResults, Unit, UnitResults};

use batch::Batch;
use progress::{Observed, ProgressMeter};

/// Number of images in a batch. Results depend on it, so it must never change.
pub const BATCH: usize = 250;

/// A classifier under evaluation. It maps images with pixels in [0, 1] to logits.
pub trait Classifier {
    /// Logits `[N, classes]` of images `[N, C, H, W]`.
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// Converts images to the memory format of the classifier.
    fn prepare_input(&self, images: &Tensor) -> Result<Tensor, TchError> {
        Ok(images.shallow_clone())
    }
}

impl Classifier for Network {
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.forward(images, Mode::Eval)
    }

    fn prepare_input(&self, images: &Tensor) -> Result<Tensor, TchError> {
        Network::prepare_input(self, images).map_err(|error| TchError::Torch(error.to_string()))
    }
}

/// An evaluation failed.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The network returns logits that are not finite, on a clean or an adversarial image.
    #[error("the network's logits are not finite: the training diverged")]
    NotFinite,
    /// The progress callback asked to stop.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// An image cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// libtorch failed.
    #[error("{}", libtorch_message(.0))]
    Tensor(#[from] TchError),
}

/// The images and attacks of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The split of the data set.
    pub images: &'a Images,
    /// The images to evaluate. Each appears once, in an order that all ranks share.
    pub indices: &'a [usize],
    /// Number of classes.
    pub classes: i64,
    /// Seed of the attacks' random starts.
    pub seed: u64,
    /// The attacks.
    pub attacks: &'a [EvalAttack],
    /// The device of the network.
    pub device: Device,
}

impl Evaluation<'_> {
    /// Counts of this evaluation before its first image: all zero.
    pub fn counts(&self) -> Counts {
        Counts::new(self.classes as usize, self.attacks.iter().map(|attack| attack.stages.len()))
    }
}

/// Evaluates this rank's batches. The sum of [`Counts`] over all ranks is the result; it does not depend on the world
/// size.
///
/// The network is in [`Mode::Eval`] and frozen. An image is robust under an attack if it is classified correctly without
/// perturbation and after every run. `worst_case` counts the images that are robust under all attacks. The start of a run
/// depends on the seed, the stage, the image and the run only. Units whose results are in `units` are not computed.
pub fn evaluate(
    network: &Network,
    evaluation: &Evaluation<'_>,
    shard: Shard,
    units: &mut dyn UnitResults,
    progress: OnProgress<'_>,
) -> Result<Counts, EvaluateError> {
    network.with_frozen_weights(|| evaluate_classifier(network, evaluation, shard, units, progress))
}

/// [`evaluate`] for any [`Classifier`]. The caller freezes its weights.
pub fn evaluate_classifier(
    classifier: &dyn Classifier,
    evaluation: &Evaluation<'_>,
    shard: Shard,
    units: &mut dyn UnitResults,
    progress: OnProgress<'_>,
) -> Result<Counts, EvaluateError> {
    let batches: Vec<(usize, &[usize])> =
        shard.select(evaluation.indices.chunks(BATCH).enumerate()).collect();
    let total = batches.iter().map(|(_, indices)| indices.len()).sum();
    let mut counts = evaluation.counts();
    let mut parts = Parts::new(evaluation.device, evaluation.images.shape(), BATCH);
    let mut meter = ProgressMeter::new(evaluation, total, progress);
    let mut loader =
        Loader::new(evaluation.images, batches.iter().map(|(_, indices)| indices.to_vec()), None)?;
    for (number, indices) in batches {
        let Some(images) = loader.next_batch()? else { break };
        let clean = classify_clean(classifier, evaluation, indices, &images, &mut parts, &mut counts)?;
        meter.begin_batch(indices.len());
        let (units, meter) = (&mut *units, &mut meter);
        let run = AttackRun { classifier, evaluation, batch: number as u32, units, meter };
        run.attack(&clean, &mut parts, &mut counts)?;
        meter.end_batch(counts.worst_case.sum());
    }
    meter.finish()?;
    Ok(counts)
}

/// Counts the clean images that are classified correctly and returns them.
fn classify_clean(
    classifier: &dyn Classifier,
    evaluation: &Evaluation<'_>,
    indices: &[usize],
    images: &ImageBatch,
    parts: &mut Parts,
    counts: &mut Counts,
) -> Result<Batch, EvaluateError> {
    let (images, labels) = float_batch(images, evaluation.device)?;
    let images = classifier.prepare_input(&images)?;
    let logits = finite_logits(classifier, &images, parts)?;
    let all = Batch {
        indices: indices.to_vec(),
        classes: indices.iter().map(|&index| usize::from(evaluation.images.label(index))).collect(),
        ranking: logits.f_argsort(1, true)?,
        images,
        labels,
        image_shape: evaluation.images.shape(),
    };
    let clean = all.select(&correct(&logits, &all.labels)?)?;
    counts.total.add(&all.classes);
    counts.clean.add(&clean.classes);
    if evaluation.attacks.iter().any(|attack| attack.sanity_checks) {
        counts
            .nondeterministic
            .add(&all.selected_classes(&nondeterministic(classifier, &all, &logits, parts)?));
        if !clean.indices.is_empty() {
            counts.zero_gradient.add(&clean.selected_classes(&zero_gradient(classifier, &clean, parts)?));
        }
    }
    Ok(clean)
}

/// The attacks on one batch.
struct AttackRun<'a, 'm, 'p> {
    classifier: &'m dyn Classifier,
    evaluation: &'m Evaluation<'a>,
    /// Number of the batch.
    batch: u32,
    units: &'m mut dyn UnitResults,
    meter: &'m mut ProgressMeter<'a, 'p>,
}

impl AttackRun<'_, '_, '_> {
    /// Runs all attacks on the correctly classified images and counts those that are robust.
    fn attack(mut self, clean: &Batch, parts: &mut Parts, counts: &mut Counts) -> Result<(), EvaluateError> {
        let mut worst_case: BTreeSet<usize> = clean.indices.iter().copied().collect();
        let attacks = self.evaluation.attacks.iter().zip(&mut counts.attacks);
        for (attack_number, (attack, counts)) in (0..).zip(attacks) {
            let mut robust = clean.shallow_clone();
            for (stage_number, (stage, count)) in (0..).zip(attack.stages.iter().zip(counts)) {
                for run in 0..stage.runs {
                    if !robust.indices.is_empty() {
                        self.meter.begin_run(&attack.name, stage)?;
                        let unit =
                            Unit { attack: attack_number, stage: stage_number, run, batch: self.batch };
                        robust = robust.select(&self.withstand(unit, stage, &robust, parts)?)?;
                    }
                    self.meter.end_run(stage);
                }
                count.add(&robust.classes);
            }
            worst_case.retain(|index| robust.indices.contains(index));
        }
        let in_all: Vec<bool> = clean.indices.iter().map(|index| worst_case.contains(index)).collect();
        counts.worst_case.add(&clean.selected_classes(&in_all));
        Ok(())
    }

    /// Which images of a batch withstand a unit.
    fn withstand(
        &mut self,
        unit: Unit,
        stage: &Stage,
        batch: &Batch,
        parts: &mut Parts,
    ) -> Result<Vec<bool>, EvaluateError> {
        let known = self.units.find(unit, &batch.indices);
        if let Some(known) = known.filter(|known| known.len() == batch.indices.len()) {
            return Ok(known);
        }
        self.meter.begin_computing();
        let (classifier, seed, images) = (self.classifier, self.evaluation.seed, batch.indices.len());
        let (meter, cancelled) = (RefCell::new(&mut *self.meter), Cell::new(false));
        let examples = parts.compute(images, |rows| {
            let observed = Observed::new(classifier, |passes| {
                let flow = meter.borrow_mut().iterated(&rows, images, passes);
                cancelled.set(flow.is_break());
                flow
            });
            stage.generate(&observed, &batch.rows(rows.clone())?, seed, unit.run)
        });
        if cancelled.get() {
            return Err(EvaluateError::Cancelled);
        }
        let robust = correct(&finite_logits(classifier, &examples?, parts)?, &batch.labels)?;
        self.units.keep(unit, &batch.indices, &robust);
        Ok(robust)
    }
}

fn finite_logits(
    classifier: &dyn Classifier,
    images: &Tensor,
    parts: &mut Parts,
) -> Result<Tensor, EvaluateError> {
    no_grad(|| {
        let logits = logits(classifier, images, parts)?;
        if logits.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(EvaluateError::NotFinite);
        }
        Ok(logits)
    })
}

fn logits(classifier: &dyn Classifier, images: &Tensor, parts: &mut Parts) -> Result<Tensor, TchError> {
    parts.compute(images.size()[0] as usize, |rows| {
        classifier.logits(&images.f_narrow(0, rows.start as i64, rows.len() as i64)?)
    })
}

/// Which images are classified correctly.
fn correct(logits: &Tensor, labels: &Tensor) -> Result<Vec<bool>, TchError> {
    Vec::try_from(logits.f_argmax(1, false)?.f_eq_tensor(labels)?)
}

/// Which images get different logits from a second forward pass. The tolerance is relative to the logits' norm.
fn nondeterministic(
    classifier: &dyn Classifier,
    batch: &Batch,
    first: &Tensor,
    parts: &mut Parts,
) -> Result<Vec<bool>, TchError> {
    const TOLERANCE: f64 = 1e-4;
    no_grad(|| {
        let change = logits(classifier, &batch.images, parts)?.f_sub(first)?;
        let length = |x: &Tensor| x.f_norm_scalaropt_dim(2.0, [1], false);
        Vec::try_from(length(&change)?.f_gt_tensor(&length(first)?.f_mul_scalar(TOLERANCE)?)?)
    })
}

/// Which images have a cross-entropy gradient of zero.
fn zero_gradient(
    classifier: &dyn Classifier,
    batch: &Batch,
    parts: &mut Parts,
) -> Result<Vec<bool>, TchError> {
    let gradient = parts.compute(batch.indices.len(), |rows| {
        let part = batch.rows(rows)?;
        let loss = |x: &Tensor| summed_cross_entropy(&classifier.logits(x)?, &part.labels);
        Ok(losses_and_gradient(&part.images, loss)?.1)
    })?;
    let size = gradient.f_abs()?.f_flatten(1, -1)?.f_sum_dim_intlist(1, false, None::<Kind>)?;
    Vec::try_from(size.f_eq(0.0)?)
}

/// The predicted class of each of these images, without perturbation, in batches of `batch` images.
pub fn predict(
    network: &Network,
    images: &Images,
    indices: &[usize],
    batch: usize,
    device: Device,
) -> Result<Vec<i64>, EvaluateError> {
    let mut parts = Parts::new(device, images.shape(), batch);
    let mut classes = Vec::with_capacity(indices.len());
    for indices in indices.chunks(batch) {
        let (pixels, _) = float_batch(&images.read(indices, None)?, device)?;
        let predicted = no_grad(|| logits(network, &pixels, &mut parts)?.f_argmax(1, false))?;
        classes.extend(Vec::<i64>::try_from(predicted)?);
    }
    Ok(classes)
}
