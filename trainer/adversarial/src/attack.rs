//! Attacks: images of the same classes, within the threat model, that the network gets wrong.
//!
//! They take the gradient of a loss with respect to the images alone; the caller freezes the weights
//! ([`Network::frozen`]), so that no weight gradient is computed and thrown away. The loss is the SUM of the images'
//! losses: an image's gradient then depends on the image and not on how many others share its batch. (Only its direction
//! is used; a mean over a large batch would bring small gradients closer to underflow.)

use datjob_api::training::{Attack, Objective, ThreatModel};
use tch::{TchError, Tensor, no_grad, with_grad};

use crate::{
    model::{Mode, Network},
    objective::{divergence, summed_cross_entropy},
    smoothing::NoisyCopies,
};

mod apgd;
mod ball;
mod fab;
mod perturbation_set;
mod pgd;
mod single_step;
mod square;

pub use apgd::{ApgdLoss, ApgdParameters, apgd};
pub use ball::Ball;
pub use fab::{FabParameters, fab_t};
pub use perturbation_set::PerturbationSet;
pub use pgd::{PgdParameters, pgd};
pub use single_step::{FgsmParameters, fgsm, n_fgsm};
pub use square::{SquareParameters, square};

/// In which mode the network is attacked during training: with running statistics by PGD, with those of the batch by
/// attacks of a single step (as Wong et al. and de Jorge et al.).
pub fn training_mode(attack: &Attack) -> Mode {
    match attack {
        Attack::Pgd(_) => Mode::Eval,
        Attack::Fgsm(_) | Attack::NFgsm(_) => Mode::TrainFrozenStatistics,
    }
}

/// How a training makes adversarial examples.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// The attack.
    pub attack: &'a Attack,
    /// The objective, whose loss is made large: the divergence from the prediction on the image for TRADES, cross-entropy
    /// otherwise.
    pub objective: &'a Objective,
    /// Where the examples may lie.
    pub threat_model: &'a ThreatModel,
    /// What step sizes are multiplied by.
    pub step_scale: f64,
}

/// The images of a step.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// `[N, C, H, W]` in [0, 1].
    pub images: &'a Tensor,
    /// i64 `[N]`, or probabilities of the classes, `[N, classes]`.
    pub labels: &'a Tensor,
    /// The start, like `images`: see [`datjob_data::random::Start`].
    pub start: &'a Tensor,
    /// Where the smoothed network is attacked.
    pub copies: Option<&'a NoisyCopies>,
}

/// The adversarial examples that a training step trains on, `[N, C, H, W]` like the images, outside of any graph. Freezes
/// the network meanwhile.
pub fn for_training(
    network: &Network,
    recipe: &Recipe<'_>,
    examples: &Examples<'_>,
) -> Result<Tensor, TchError> {
    let Recipe { attack, objective, threat_model, step_scale } = *recipe;
    let Examples { images, labels, start, copies } = *examples;
    let mode = training_mode(attack);
    let perturbations = PerturbationSet::from(threat_model);
    network.frozen(|| {
        let natural = match objective {
            Objective::Trades(_) => Some(no_grad(|| network.forward(images, mode)?.f_log_softmax(1, None))?),
            Objective::CrossEntropy(_) | Objective::Mart(_) => None,
        };
        let loss = |x: &Tensor| {
            if let Some(copies) = copies {
                return copies.cross_entropy(&network.forward(&copies.of(x)?, mode)?, labels);
            }
            let logits = network.forward(x, mode)?;
            match &natural {
                Some(natural) => divergence(natural, &logits.f_log_softmax(1, None)?)?.f_sum(logits.kind()),
                None => summed_cross_entropy(&logits, labels),
            }
        };
        match attack {
            Attack::Pgd(spec) => {
                let step_size = spec.step_size(threat_model) * step_scale;
                pgd(&loss, images, &PgdParameters { perturbations, step_size, steps: spec.steps }, start)
            }
            Attack::Fgsm(spec) => {
                let step_size = spec.step_size(threat_model) * step_scale;
                let epsilon = perturbations.epsilon;
                fgsm(&loss, images, &FgsmParameters { epsilon, step_size }, start)
            }
            Attack::NFgsm(spec) => n_fgsm(&loss, images, spec.step_size(threat_model) * step_scale, start),
        }
    })
}

/// One step from `from` along the direction in which the loss rises fastest.
fn ascend(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    from: &Tensor,
    step_size: f64,
    ball: &Ball,
) -> Result<Tensor, TchError> {
    let gradient = input_gradient(loss, from)?;
    no_grad(|| ball.steepest(gradient)?.f_mul_scalar_(step_size)?.f_add_(from))
}

/// The gradient of a loss with respect to the images.
fn input_gradient(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
) -> Result<Tensor, TchError> {
    Ok(gradient_of(images, loss)?.1)
}

/// Losses at `images`, out of the graph, and the gradient of their sum with respect to the images: for each image that of
/// its own loss.
pub(crate) fn gradient_of(
    images: &Tensor,
    losses: impl Fn(&Tensor) -> Result<Tensor, TchError>,
) -> Result<(Tensor, Tensor), TchError> {
    with_grad(|| {
        let images = images.f_detach()?.f_set_requires_grad(true)?;
        let losses = losses(&images)?;
        let sum = losses.f_sum(losses.kind())?;
        let gradient = Tensor::f_run_backward(&[sum], &[&images], false, false)?.pop();
        let gradient =
            gradient.ok_or_else(|| TchError::Torch("the backward pass returned no gradient".to_owned()))?;
        Ok((losses.f_detach()?, gradient))
    })
}

/// `[N]` as `[N, 1, 1, 1]`.
fn image_mask(flags: &Tensor) -> Result<Tensor, TchError> {
    flags.f_view([-1, 1, 1, 1])
}
