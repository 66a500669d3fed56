//! Adversarial weight perturbation (Wu et al., arXiv 2004.05884): the loss is taken where the weights are worst within a
//! small distance, layer by layer.

use tch::{TchError, Tensor, no_grad};

/// What keeps a division by the length of a gradient of zeros finite.
const TINY: f64 = 1e-20;

/// Weights that were moved; [`undo`](Self::undo) puts them back.
#[must_use = "the weights stay moved until undo()"]
pub struct Perturbed {
    moved: Vec<(Tensor, Tensor)>,
}

/// Moves every parameter of more than one dimension by γ ‖w‖ g / ‖g‖, g the gradient of `loss` with respect to it
/// (equation 10, one step). Biases and BatchNorm stay.
///
/// The gradient is this rank's alone and goes nowhere else: no gradient is stored in a parameter, so a Reducer's hooks do
/// not see it.
pub fn perturb(parameters: &[(String, Tensor)], loss: &Tensor, gamma: f64) -> Result<Perturbed, TchError> {
    let weights: Vec<&Tensor> =
        parameters.iter().map(|(_, parameter)| parameter).filter(|parameter| parameter.dim() > 1).collect();
    let gradients = Tensor::f_run_backward(&[loss], &weights, false, false)?;
    let mut perturbed = Perturbed { moved: Vec::with_capacity(weights.len()) };
    no_grad(|| {
        for (weight, gradient) in weights.into_iter().zip(gradients) {
            let length = weight.f_norm()?.f_mul_scalar_(gamma)?;
            let step = gradient.f_mul(&length.f_div(&gradient.f_norm()?.f_add_scalar_(TINY)?)?)?;
            let mut before = weight.f_empty_like()?;
            before.f_copy_(weight)?;
            let _ = weight.shallow_clone().f_add_(&step)?;
            perturbed.moved.push((weight.shallow_clone(), before));
        }
        Ok(perturbed)
    })
}

impl Perturbed {
    /// Puts the weights back, bit by bit.
    pub fn undo(self) -> Result<(), TchError> {
        no_grad(|| self.moved.into_iter().try_for_each(|(mut weight, before)| weight.f_copy_(&before)))
    }
}
