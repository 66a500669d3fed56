//! Single-step attacks: FGSM and N-FGSM. Pure functions.

use datjob_api::training::Norm;
use tch::{TchError, Tensor, no_grad};

use super::{Ball, PerturbationSet, ascend};

/// Parameters of [`fgsm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FgsmParameters {
    /// Radius of the ℓ∞ ball, in units of the pixel range.
    pub epsilon: f64,
    /// Size of the step, in the same units.
    pub step_size: f64,
}

/// The fast gradient sign method with a random start: one step along the sign of the gradient from `images + start_noise`,
/// projected back into the ball (Wong et al., "Fast is better than free", algorithm 3). Arguments as in [`super::pgd`].
///
/// As in the published code, the start is clipped to [0, 1], so that the gradient is computed at a valid image.
pub fn fgsm(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    parameters: &FgsmParameters,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let ball = Ball::new(PerturbationSet { norm: Norm::Linf, epsilon: parameters.epsilon }, images)?;
    let start = no_grad(|| ball.project(&images.f_add(start_noise)?))?;
    ball.project(&ascend(loss, &start, parameters.step_size, &ball)?)
}

/// N-FGSM (de Jorge et al., "Make some noise: reliable and efficient single-step adversarial training", algorithm 1): one
/// step along the sign of the gradient from `images + start_noise`. The noise may exceed ε. The result is clipped to pixels
/// in [0, 1] and not projected, so a perturbation may reach the sum of noise and step. Arguments as in [`super::pgd`].
pub fn n_fgsm(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    step_size: f64,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let pixels = Ball::new(PerturbationSet { norm: Norm::Linf, epsilon: 1.0 }, images)?;
    let start = no_grad(|| pixels.project(&images.f_add(start_noise)?))?;
    pixels.project(&ascend(loss, &start, step_size, &pixels)?)
}
