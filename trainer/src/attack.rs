//! Attacks: images of the same classes, within the threat model, that the network gets wrong.
//!
//! They take the gradient of the loss with respect to the images alone; the caller freezes the weights
//! ([`Network::frozen`]), so that no weight gradient is computed and thrown away. The loss is the SUM of the images'
//! cross-entropies: an image's gradient then depends on the image and not on how many others share its batch. (Only
//! its sign is used; a mean over a large batch would bring small gradients closer to underflow.)

use datjob_api::training::{Attack, ThreatModel};
use tch::{Reduction, TchError, Tensor, no_grad, with_grad};

use crate::model::{Mode, Network};

mod ball;
mod fgsm;
mod pgd;

pub use ball::LinfBall;
pub use fgsm::{FgsmParameters, fgsm};
pub use pgd::{PgdParameters, pgd};

/// In which mode the network is attacked during training: with running statistics by PGD, with those of the batch by
/// attacks of a single step (as Wong et al.).
pub fn training_mode(attack: &Attack) -> Mode {
    match attack {
        Attack::Pgd(_) => Mode::Eval,
        Attack::Fgsm(_) => Mode::TrainFrozenStatistics,
    }
}

/// The adversarial examples that a training step trains on, `[N, C, H, W]` like `images`, outside of any graph.
///
/// `noise` is the start, uniform in the ε-ball: see [`crate::random::training_noise`]. Freezes the network meanwhile.
pub fn for_training(
    network: &Network,
    attack: &Attack,
    threat_model: &ThreatModel,
    images: &Tensor,
    labels: &Tensor,
    noise: &Tensor,
) -> Result<Tensor, TchError> {
    let mode = training_mode(attack);
    let model = |x: &Tensor| network.forward(x, mode);
    let epsilon = threat_model.epsilon.value();
    network.frozen(|| match attack {
        Attack::Pgd(spec) => {
            let step_size = spec.step_size(threat_model);
            let parameters = PgdParameters { epsilon, step_size, steps: spec.steps };
            pgd(&model, images, labels, &parameters, noise)
        }
        Attack::Fgsm(spec) => {
            let parameters = FgsmParameters { epsilon, step_size: spec.step_size(threat_model) };
            fgsm(&model, images, labels, &parameters, noise)
        }
    })
}

/// One step: from `from` along the sign of the loss's gradient, back into the ball.
fn signed_step(
    model: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    from: &Tensor,
    labels: &Tensor,
    step_size: f64,
    ball: &LinfBall,
) -> Result<Tensor, TchError> {
    let mut gradient = input_gradient(model, from, labels)?;
    no_grad(|| ball.project(&gradient.f_sign_()?.f_mul_scalar_(step_size)?.f_add_(from)?))
}

/// The gradient of the summed cross-entropy with respect to the images.
fn input_gradient(
    model: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    labels: &Tensor,
) -> Result<Tensor, TchError> {
    with_grad(|| {
        let images = images.f_detach()?.f_set_requires_grad(true)?;
        let loss =
            model(&images)?.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?;
        let gradient = Tensor::f_run_backward(&[loss], &[&images], false, false)?.pop();
        gradient.ok_or_else(|| TchError::Torch("the backward pass gave no gradient".to_owned()))
    })
}
