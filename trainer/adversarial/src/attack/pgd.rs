use tch::{TchError, Tensor, no_grad};

use super::{Ball, PerturbationSet, ascend};

/// Projected gradient descent in a ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PgdParameters {
    /// The allowed perturbations.
    pub perturbations: PerturbationSet,
    /// Length of a step, in units of the pixel range.
    pub step_size: f64,
    /// Number of steps.
    pub steps: u32,
}

/// Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks"): from
/// `images + start_noise`, each step goes along the steepest direction of the loss (the sign of its gradient in ℓ∞, the
/// gradient over its length in ℓ2) and is projected back into the ball.
///
/// `loss` of images is a sum over them; its gradient is asked for. `images`: `[N, C, H, W]` in [0, 1]; the result has the
/// shape, kind and memory format of `images` and belongs to no graph. The caller freezes the model's weights.
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
