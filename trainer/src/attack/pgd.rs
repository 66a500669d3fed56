use tch::{TchError, Tensor, no_grad};

use super::{LinfBall, signed_step};

/// Projected gradient descent in the ℓ∞ ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PgdParameters {
    /// Radius of the ball, in units of the pixel range.
    pub epsilon: f64,
    /// Size of a step, in the same units.
    pub step_size: f64,
    /// Number of steps.
    pub steps: u32,
}

/// Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks"): from
/// `images + start_noise`, each step goes along the sign of the gradient and is projected back into the ball.
///
/// `images`: `[N, C, H, W]` in [0, 1]; `labels`: i64 `[N]`; the result has the shape, kind and memory format of
/// `images` and belongs to no graph. The caller freezes the model's weights.
pub fn pgd(
    model: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    labels: &Tensor,
    parameters: &PgdParameters,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let ball = LinfBall::new(images, parameters.epsilon)?;
    let start = no_grad(|| ball.project(&images.f_add(start_noise)?))?;
    (0..parameters.steps)
        .try_fold(start, |from, _| signed_step(model, &from, labels, parameters.step_size, &ball))
}
