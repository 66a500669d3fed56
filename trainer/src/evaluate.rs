//! A rank's part of an evaluation: how many images it classifies correctly, as they are and attacked.
//!
//! The images are cut, in the order given, into batches of [`BATCH`]; rank r of W takes the batches r, r + W, r + 2W, …
//! whole. Kernels give slightly other logits for other batch sizes, so only whole batches of a fixed composition make
//! the sum over ranks the same for every world. (Logits may also depend on the number of threads of a process.)

use std::ops::ControlFlow;

use datjob_api::training::{DuringAttack, FinalAttack, ThreatModel};
use datjob_c10d::C10dError;
use tch::{Device, TchError, Tensor, no_grad};
use thiserror::Error;

use crate::{
    attack::{ApgdLoss, ApgdParameters, PgdParameters, apgd, pgd},
    data::Images,
    losses::summed_cross_entropy,
    model::{Mode, Network},
    random::{Start, evaluation_noise},
};

mod counts;

pub use counts::{Counts, CountsError};

/// Images in a batch. Part of the definition of a result: never changes.
pub const BATCH: usize = 250;

/// An attack of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalAttack {
    /// The name that reports use, for example `pgd-20`.
    pub name: String,
    /// What is done.
    pub method: Method,
    /// How often, from another start or towards another class; an image counts as robust where it withstands all.
    pub runs: u32,
}

/// What an attack does in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Projected gradient descent on the cross-entropy.
    Pgd(PgdParameters),
    /// APGD on the cross-entropy.
    ApgdCe(ApgdParameters),
    /// APGD on the targeted difference of logits ratio, in run r towards the class that is r + 2nd on the image.
    ApgdT(ApgdParameters),
}

impl EvalAttack {
    /// The attack on the validation split.
    pub fn during(spec: &DuringAttack, threat_model: &ThreatModel) -> Self {
        let DuringAttack::Pgd(spec) = spec;
        let (norm, epsilon) = (threat_model.norm, threat_model.epsilon.value());
        let step_size = spec.step_size(threat_model);
        let parameters = PgdParameters { norm, epsilon, step_size, steps: spec.steps };
        Self { name: format!("pgd-{}", spec.steps), method: Method::Pgd(parameters), runs: 1 }
    }

    /// An attack on the test set.
    pub fn at_end(spec: &FinalAttack, threat_model: &ThreatModel) -> Self {
        let (norm, epsilon) = (threat_model.norm, threat_model.epsilon.value());
        let (method, runs) = match spec {
            FinalAttack::Pgd(spec) => {
                let step_size = spec.step_size(threat_model);
                let parameters = PgdParameters { norm, epsilon, step_size, steps: spec.steps };
                (Method::Pgd(parameters), spec.restarts())
            }
            FinalAttack::ApgdCe(spec) => {
                (Method::ApgdCe(ApgdParameters { norm, epsilon, steps: spec.steps() }), spec.restarts())
            }
            FinalAttack::ApgdT(spec) => {
                (Method::ApgdT(ApgdParameters { norm, epsilon, steps: spec.steps() }), spec.targets())
            }
        };
        Self { name: spec.name(), method, runs }
    }
}

impl Method {
    fn start(&self) -> Start {
        match self {
            Self::Pgd(parameters) => Start::in_ball(parameters.norm, parameters.epsilon),
            // Its direction alone counts.
            Self::ApgdCe(parameters) | Self::ApgdT(parameters) => Start::in_ball(parameters.norm, 1.0),
        }
    }

    /// Adversarial examples of one run. `ranking`: the classes of each image, the likeliest first.
    fn adversarial(
        &self,
        network: &Network,
        (images, labels): (&Tensor, &Tensor),
        ranking: &Tensor,
        run: u32,
        noise: &Tensor,
    ) -> Result<Tensor, TchError> {
        let logits = |x: &Tensor| network.forward(x, Mode::Eval);
        match self {
            Self::Pgd(parameters) => {
                let loss = |x: &Tensor| summed_cross_entropy(&logits(x)?, labels);
                pgd(&loss, images, parameters, noise)
            }
            Self::ApgdCe(parameters) => {
                apgd(&logits, &ApgdLoss::CrossEntropy, (images, labels), parameters, noise)
            }
            Self::ApgdT(parameters) => {
                let target = ranking.f_select(1, i64::from(run) + 1)?;
                apgd(&logits, &ApgdLoss::TargetedDlr(target), (images, labels), parameters, noise)
            }
        }
    }
}

/// Why an evaluation ended early.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The network gives logits that are not finite, on an image or its attacked form.
    #[error("the network's logits are not finite: training diverged")]
    NotFinite,
    /// The progress callback asked to stop.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// libtorch failed.
    #[error(transparent)]
    Tensor(#[from] TchError),
    /// Changing the memory format failed.
    #[error(transparent)]
    MemoryFormat(#[from] C10dError),
}

/// What to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The data set's part.
    pub images: &'a Images,
    /// The images in it, in an order that all ranks share.
    pub indices: &'a [usize],
    /// Seed of the attacks' random starts.
    pub seed: u64,
    /// The attacks.
    pub attacks: &'a [EvalAttack],
    /// Where the network is.
    pub device: Device,
}

/// Evaluates this rank's batches; the sum of [`Counts`] over all ranks is the result, and the same for every world.
///
/// The network is in [`Mode::Eval`] and frozen. An image counts as robust under an attack where it is classified
/// correctly as it is (that is a perturbation of 0) and after every restart; `worst_case` asks for all attacks. The
/// start of a restart belongs to the seed, the image and the restart. `progress` hears how many of this rank's images
/// are done and how many there are, after every batch of every attack, and may stop the evaluation.
pub fn evaluate(
    network: &Network,
    evaluation: &Evaluation<'_>,
    rank: usize,
    world: usize,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Counts, EvaluateError> {
    let batches: Vec<&[usize]> = evaluation.indices.chunks(BATCH).skip(rank).step_by(world.max(1)).collect();
    let total = batches.iter().map(|batch| batch.len()).sum();
    let mut counts = Counts::new(evaluation.attacks.len());
    network.frozen(|| {
        for batch in batches {
            let done = counts.total as usize;
            let mut pulse = || match progress(done, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(EvaluateError::Cancelled),
            };
            evaluate_batch(network, evaluation, batch, &mut counts, &mut pulse)?;
        }
        match progress(total, total) {
            ControlFlow::Continue(()) => Ok(counts),
            ControlFlow::Break(()) => Err(EvaluateError::Cancelled),
        }
    })
}

fn evaluate_batch(
    network: &Network,
    evaluation: &Evaluation<'_>,
    batch: &[usize],
    counts: &mut Counts,
    pulse: &mut dyn FnMut() -> Result<(), EvaluateError>,
) -> Result<(), EvaluateError> {
    let Evaluation { images: source, seed, attacks, device, .. } = *evaluation;
    let (images, labels) = source.batch(batch, device)?;
    let images = network.input(&images)?;
    let logits = finite_logits(network, &images)?;
    let clean = correct(&logits, &labels)?;
    let ranking = logits.f_argsort(1, true)?;
    let mut worst_case = clean.clone();
    for (attack, count) in attacks.iter().zip(&mut counts.attacks) {
        let mut survivors = clean.clone();
        for run in 0..attack.runs {
            // A batch is attacked whole or, where nobody is left, not at all: leaving out those who fell would change
            // the logits of the others.
            if !survivors.contains(&true) {
                break;
            }
            pulse()?;
            let start = attack.method.start();
            let noise = evaluation_noise(seed, u64::from(run), batch, source.shape(), start)?;
            let noise = noise.f_to_device(device)?;
            let adversarial =
                attack.method.adversarial(network, (&images, &labels), &ranking, run, &noise)?;
            intersect(&mut survivors, &correct(&finite_logits(network, &adversarial)?, &labels)?);
        }
        *count += number_of(&survivors);
        intersect(&mut worst_case, &survivors);
    }
    counts.total += batch.len() as u64;
    counts.clean += number_of(&clean);
    counts.worst_case += number_of(&worst_case);
    Ok(())
}

fn finite_logits(network: &Network, images: &Tensor) -> Result<Tensor, EvaluateError> {
    no_grad(|| {
        let logits = network.forward(images, Mode::Eval)?;
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

fn number_of(flags: &[bool]) -> u64 {
    flags.iter().filter(|&&flag| flag).count() as u64
}

fn intersect(flags: &mut [bool], others: &[bool]) {
    flags.iter_mut().zip(others).for_each(|(flag, &other)| *flag &= other);
}
