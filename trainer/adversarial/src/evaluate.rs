//! A rank's part of an evaluation: how many images it classifies correctly, as they are and attacked.
//!
//! The images are cut, in the order given, into batches of [`BATCH`]; rank r of W takes the batches r, r + W, r + 2W, …
//! whole. Kernels give slightly other logits for other batch sizes; so every batch has a composition that does not depend
//! on the world: those of its images that withstood what came before. (Logits may also depend on the number of threads of
//! a process.)

use std::{collections::BTreeSet, ops::ControlFlow};

use datjob_data::{DataError, ImageBatch, Images, Loader};
use tch::{Device, Kind, TchError, Tensor, no_grad};
use thiserror::Error;

use crate::{
    attack::gradient_of,
    model::{Mode, Network},
    objective::summed_cross_entropy,
    tensors::float_batch,
};

mod attack;
mod batch;
mod counts;
mod doubts;
mod protocol;
mod results;
mod sweep;

pub use attack::{EvalAttack, Method, Stage};
pub use counts::{ByClass, Counts, CountsError};
pub use doubts::doubts;
pub use protocol::{TestMeasurements, TestResults, run_test_protocol};

use batch::Batch;

use results::attack_results;
use sweep::{sweep_attacks, sweep_results};

/// Images in a batch. Part of the definition of a result: never changes.
pub const BATCH: usize = 250;

/// What is evaluated: it maps images with pixels in [0, 1] to logits.
pub trait Classifier {
    /// Logits `[N, classes]` of images `[N, C, H, W]`.
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError>;

    /// Images in the memory format that it works in.
    fn input(&self, images: &Tensor) -> Result<Tensor, TchError> {
        Ok(images.shallow_clone())
    }
}

impl Classifier for Network {
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.forward(images, Mode::Eval)
    }

    fn input(&self, images: &Tensor) -> Result<Tensor, TchError> {
        Network::input(self, images).map_err(|error| TchError::Torch(error.to_string()))
    }
}

/// Why an evaluation ended early.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The network gives logits that are not finite, on an image or its attacked form.
    #[error("the network's logits are not finite: the training diverged")]
    NotFinite,
    /// The progress callback asked to stop.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// An image cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// libtorch failed.
    #[error(transparent)]
    Tensor(#[from] TchError),
}

/// What to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The data set's part.
    pub images: &'a Images,
    /// The images in it, each once, in an order that all ranks share.
    pub indices: &'a [usize],
    /// Classes that labels tell apart.
    pub classes: i64,
    /// Seed of the attacks' random starts.
    pub seed: u64,
    /// The attacks.
    pub attacks: &'a [EvalAttack],
    /// Where the network is.
    pub device: Device,
}

impl Evaluation<'_> {
    /// Zeros, in the shape of this evaluation's counts.
    pub fn counts(&self) -> Counts {
        Counts::new(self.classes as usize, self.attacks.iter().map(|attack| attack.stages.len()))
    }
}

/// Evaluates this rank's batches; the sum of [`Counts`] over all ranks is the result, and the same for every world.
///
/// The network is in [`Mode::Eval`] and frozen. An image counts as robust under an attack where it is classified
/// correctly as it is (that is a perturbation of 0) and after every run; `worst_case` asks for all attacks. The
/// start of a run belongs to the seed, the image and the run. `progress` hears how many of this rank's images
/// are done and how many there are, before every run of every attack, and may stop the evaluation.
pub fn evaluate(
    network: &Network,
    evaluation: &Evaluation<'_>,
    rank: usize,
    world: usize,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Counts, EvaluateError> {
    network.frozen(|| evaluate_classifier(network, evaluation, (rank, world), progress))
}

/// The same for anything that gives logits.
pub fn evaluate_classifier(
    classifier: &dyn Classifier,
    evaluation: &Evaluation<'_>,
    (rank, world): (usize, usize),
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Counts, EvaluateError> {
    let batches: Vec<&[usize]> = evaluation.indices.chunks(BATCH).skip(rank).step_by(world.max(1)).collect();
    let total = batches.iter().map(|batch| batch.len()).sum();
    let mut counts = evaluation.counts();
    let mut done = 0;
    let mut pulse = |done| match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EvaluateError::Cancelled),
    };
    let mut loader = Loader::new(evaluation.images, batches.iter().map(|batch| batch.to_vec()), None)?;
    for indices in batches {
        let Some(images) = loader.next_batch()? else { break };
        let batch = look(classifier, evaluation, (indices, &images), &mut counts)?;
        attack_all(classifier, evaluation, &batch, &mut counts, &mut || pulse(done))?;
        done += indices.len();
    }
    pulse(total)?;
    Ok(counts)
}

/// Counts the images as they are; those classified correctly are to be attacked.
fn look(
    classifier: &dyn Classifier,
    evaluation: &Evaluation<'_>,
    (indices, images): (&[usize], &ImageBatch),
    counts: &mut Counts,
) -> Result<Batch, EvaluateError> {
    let (images, labels) = float_batch(images, evaluation.device)?;
    let images = classifier.input(&images)?;
    let logits = finite_logits(classifier, &images)?;
    let all = Batch {
        indices: indices.to_vec(),
        classes: indices.iter().map(|&index| usize::from(evaluation.images.label(index))).collect(),
        ranking: logits.f_argsort(1, true)?,
        images,
        labels,
        image_shape: evaluation.images.shape(),
    };
    let clean = all.keep(&correct(&logits, &all.labels)?)?;
    counts.total.add(&all.classes);
    counts.clean.add(&clean.classes);
    if evaluation.attacks.iter().any(|attack| attack.checked) {
        counts.unsteady.add(&all.classes_of(&unsteady(classifier, &all, &logits)?));
        if !clean.indices.is_empty() {
            counts.without_gradient.add(&clean.classes_of(&without_gradient(classifier, &clean)?));
        }
    }
    Ok(clean)
}

/// Counts those images that withstand the attacks.
fn attack_all(
    classifier: &dyn Classifier,
    evaluation: &Evaluation<'_>,
    clean: &Batch,
    counts: &mut Counts,
    pulse: &mut dyn FnMut() -> Result<(), EvaluateError>,
) -> Result<(), EvaluateError> {
    let mut robust: BTreeSet<usize> = clean.indices.iter().copied().collect();
    for (attack, counts) in evaluation.attacks.iter().zip(&mut counts.attacks) {
        let mut standing = clean.shallow_clone();
        for (stage, count) in attack.stages.iter().zip(counts) {
            for run in 0..stage.runs {
                if standing.indices.is_empty() {
                    break;
                }
                pulse()?;
                let examples = stage.method.adversarial(classifier, &standing, (evaluation.seed, run))?;
                let withstood = correct(&finite_logits(classifier, &examples)?, &standing.labels)?;
                standing = standing.keep(&withstood)?;
            }
            count.add(&standing.classes);
        }
        robust.retain(|index| standing.indices.contains(index));
    }
    let in_all: Vec<bool> = clean.indices.iter().map(|index| robust.contains(index)).collect();
    counts.worst_case.add(&clean.classes_of(&in_all));
    Ok(())
}

fn finite_logits(classifier: &dyn Classifier, images: &Tensor) -> Result<Tensor, EvaluateError> {
    no_grad(|| {
        let logits = classifier.logits(images)?;
        if logits.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(EvaluateError::NotFinite);
        }
        Ok(logits)
    })
}

/// Which images are classified correctly.
fn correct(logits: &Tensor, labels: &Tensor) -> Result<Vec<bool>, TchError> {
    Vec::try_from(logits.f_argmax(1, false)?.f_eq_tensor(labels)?)
}

/// Which images have other logits when asked again, by more than a ten-thousandth of their length.
fn unsteady(classifier: &dyn Classifier, batch: &Batch, logits: &Tensor) -> Result<Vec<bool>, TchError> {
    const TOLERANCE: f64 = 1e-4;
    no_grad(|| {
        let change = classifier.logits(&batch.images)?.f_sub(logits)?;
        let length = |x: &Tensor| x.f_norm_scalaropt_dim(2.0, [1], false);
        Vec::try_from(length(&change)?.f_gt_tensor(&length(logits)?.f_mul_scalar(TOLERANCE)?)?)
    })
}

/// At which images the gradient of the cross-entropy is zero.
fn without_gradient(classifier: &dyn Classifier, batch: &Batch) -> Result<Vec<bool>, TchError> {
    let loss = |x: &Tensor| summed_cross_entropy(&classifier.logits(x)?, &batch.labels);
    let (_, gradient) = gradient_of(&batch.images, loss)?;
    let size = gradient.f_abs()?.f_flatten(1, -1)?.f_sum_dim_intlist(1, false, None::<Kind>)?;
    Vec::try_from(size.f_eq(0.0)?)
}

/// The class that the network gives each of these images, as they are.
pub fn predict(
    network: &Network,
    images: &Images,
    indices: &[usize],
    device: Device,
) -> Result<Vec<i64>, EvaluateError> {
    let (pixels, _) = float_batch(&images.read(indices, None)?, device)?;
    let classes = no_grad(|| network.forward(&pixels, Mode::Eval)?.f_argmax(1, false))?;
    Ok(Vec::try_from(classes)?)
}
