use tch::{TchError, Tensor, no_grad};

use super::{LinfBall, signed_step};

/// The fast gradient sign method from a random start, in the ℓ∞ ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FgsmParameters {
    /// Radius of the ball, in units of the pixel range.
    pub epsilon: f64,
    /// Size of the step, in the same units.
    pub step_size: f64,
}

/// One step along the sign of the gradient from `images + start_noise`, projected back into the ball (Wong et al., "Fast
/// is better than free", algorithm 3). Shapes as in [`super::pgd`].
///
/// As in the published code, the start is clipped to [0, 1], so that the gradient is taken at an image.
pub fn fgsm(
    model: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    labels: &Tensor,
    parameters: &FgsmParameters,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let ball = LinfBall::new(images, parameters.epsilon)?;
    let start = no_grad(|| ball.project(&images.f_add(start_noise)?))?;
    signed_step(model, &start, labels, parameters.step_size, &ball)
}
