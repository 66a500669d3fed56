//! Projected gradient descent. A pure function.

use tch::{TchError, Tensor, no_grad};

use super::{Ball, PerturbationSet, ascend};

/// Parameters of [`pgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PgdParameters {
    /// The allowed perturbations.
    pub perturbations: PerturbationSet,
    /// Length of a step, in units of the pixel range.
    pub step_size: f64,
    /// Number of steps.
    pub steps: u32,
}

/// Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks"). It starts
/// from `images + start_noise`. Each step goes in the steepest direction of the loss (the sign of its gradient in ℓ∞, the
/// gradient divided by its norm in ℓ2) and is projected back into the ball.
///
/// `loss` returns the sum of the images' losses; the attack differentiates it. `images` are `[N, C, H, W]` in [0, 1]. The
/// result has their shape, kind and memory format and is detached. The caller freezes the model's weights.
pub fn pgd(
    loss: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    parameters: &PgdParameters,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let ball = Ball::new(parameters.perturbations, images)?;
    let start = no_grad(|| ball.project(&images.f_add(start_noise)?))?;
    (0..parameters.steps).try_fold(start, |from, _| {
        let moved = ascend(loss, &from, parameters.step_size, &ball)?;
        ball.project(&moved)
    })
}
