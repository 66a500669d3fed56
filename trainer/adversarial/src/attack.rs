//! Attacks: they generate adversarial examples, images within the threat model that the network misclassifies. Pure
//! functions, except for the network's calls.
//!
//! An attack differentiates a loss with respect to the images only. The caller freezes the weights
//! ([`Network::with_frozen_weights`]), so that no weight gradient is computed and discarded. The loss is the SUM of the images'
//! losses, so an image's gradient does not depend on the size of its batch. Only its direction is used; a mean over a
//! large batch would bring small gradients closer to underflow.

use datjob_api::training::{Attack, Objective, ThreatModel};
use tch::{TchError, Tensor, no_grad, with_grad};

use crate::{
    model::{Mode, Network},
    objective::{kl_divergence, summed_cross_entropy},
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

/// BatchNorm mode of the network under a training attack. PGD uses the running statistics; single-step attacks use those
/// of the batch, as Wong et al. and de Jorge et al. do.
pub fn training_mode(attack: &Attack) -> Mode {
    match attack {
        Attack::Pgd(_) => Mode::Eval,
        Attack::Fgsm(_) | Attack::NFgsm(_) => Mode::TrainFrozenStatistics,
    }
}

/// How a training generates adversarial examples.
#[derive(Clone, Copy, Debug)]
pub struct AttackConfig<'a> {
    /// The attack.
    pub attack: &'a Attack,
    /// The objective. It selects the loss that the attack maximises: for TRADES the divergence from the prediction on
    /// the clean image, otherwise cross-entropy.
    pub objective: &'a Objective,
    /// The allowed perturbations.
    pub threat_model: &'a ThreatModel,
    /// Factor of all step sizes.
    pub step_scale: f64,
}

/// The images that a training step attacks.
#[derive(Clone, Copy, Debug)]
pub struct AttackInputs<'a> {
    /// `[N, C, H, W]` in [0, 1].
    pub images: &'a Tensor,
    /// i64 `[N]`, or probabilities of the classes, `[N, classes]`.
    pub labels: &'a Tensor,
    /// The noise from which the attack starts, shaped like `images`: see [`datjob_data::random::Start`].
    pub start_noise: &'a Tensor,
    /// The noisy copies, if the smoothed network is attacked.
    pub noisy_copies: Option<&'a NoisyCopies>,
}

/// Generates the adversarial examples of a training step: `[N, C, H, W]` like the images, detached from the graph. The
/// network is frozen during the call.
pub fn generate_adversarial_examples(
    network: &Network,
    config: &AttackConfig<'_>,
    inputs: &AttackInputs<'_>,
) -> Result<Tensor, TchError> {
    let AttackConfig { attack, objective, threat_model, step_scale } = *config;
    let AttackInputs { images, labels, start_noise, noisy_copies } = *inputs;
    let mode = training_mode(attack);
    let perturbations = PerturbationSet::from(threat_model);
    network.with_frozen_weights(|| {
        let natural = match objective {
            Objective::Trades(_) => Some(no_grad(|| network.forward(images, mode)?.f_log_softmax(1, None))?),
            Objective::CrossEntropy(_) | Objective::Mart(_) => None,
        };
        let loss = |x: &Tensor| {
            if let Some(copies) = noisy_copies {
                return copies.cross_entropy(&network.forward(&copies.add_noise(x)?, mode)?, labels);
            }
            let logits = network.forward(x, mode)?;
            match &natural {
                Some(natural) => {
                    kl_divergence(natural, &logits.f_log_softmax(1, None)?)?.f_sum(logits.kind())
                }
                None => summed_cross_entropy(&logits, labels),
            }
        };
        match attack {
            Attack::Pgd(spec) => {
                let step_size = spec.step_size(threat_model) * step_scale;
                pgd(
                    &loss,
                    images,
                    &PgdParameters { perturbations, step_size, steps: spec.steps },
                    start_noise,
                )
            }
            Attack::Fgsm(spec) => {
                let step_size = spec.step_size(threat_model) * step_scale;
                let epsilon = perturbations.epsilon;
                fgsm(&loss, images, &FgsmParameters { epsilon, step_size }, start_noise)
            }
            Attack::NFgsm(spec) => {
                n_fgsm(&loss, images, spec.step_size(threat_model) * step_scale, start_noise)
            }
        }
    })
}

/// One step from `from` in the direction of steepest ascent of the loss.
fn ascend(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    from: &Tensor,
    step_size: f64,
    ball: &Ball,
) -> Result<Tensor, TchError> {
    let gradient = input_gradient(loss, from)?;
    no_grad(|| ball.steepest_direction(gradient)?.f_mul_scalar_(step_size)?.f_add_(from))
}

/// The gradient of a loss with respect to the images.
fn input_gradient(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
) -> Result<Tensor, TchError> {
    Ok(losses_and_gradient(images, loss)?.1)
}

/// The losses at `images`, detached, and the gradient of their sum with respect to the images. Each image's gradient is
/// that of its loss.
pub(crate) fn losses_and_gradient(
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

/// `[N]` as `[N, 1, 1, 1]`, which broadcasts over the pixels of each image.
fn per_image(values: &Tensor) -> Result<Tensor, TchError> {
    values.f_view([-1, 1, 1, 1])
}
