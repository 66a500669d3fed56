//! Adversarial weight perturbation (Wu et al., arXiv 2004.05884): the loss is computed at weights that are perturbed, layer
//! by layer, in the direction that increases it.

use tch::{TchError, Tensor, no_grad};

/// Keeps a division by the norm of a zero gradient finite.
const MIN_DIVISOR: f64 = 1e-20;

/// Perturbed weights; [`restore`](Self::restore) undoes the perturbation.
#[must_use = "the weights stay perturbed until restore()"]
pub struct PerturbedWeights {
    /// The live weights and copies of their original values.
    originals: Vec<(Tensor, Tensor)>,
}

/// Moves every parameter of more than one dimension by γ ‖w‖ g / ‖g‖, where g is the gradient of `loss` with respect to it
/// (equation 10, one step). Biases and BatchNorm parameters do not change.
///
/// The gradient is local to this rank. It is not stored in the parameters, so it does not run a Reducer's hooks.
pub fn perturb(
    parameters: &[(String, Tensor)],
    loss: &Tensor,
    gamma: f64,
) -> Result<PerturbedWeights, TchError> {
    let weights: Vec<&Tensor> =
        parameters.iter().map(|(_, parameter)| parameter).filter(|parameter| parameter.dim() > 1).collect();
    let gradients = Tensor::f_run_backward(&[loss], &weights, false, false)?;
    let mut perturbed = PerturbedWeights { originals: Vec::with_capacity(weights.len()) };
    no_grad(|| {
        for (weight, gradient) in weights.into_iter().zip(gradients) {
            let max_norm = weight.f_norm()?.f_mul_scalar_(gamma)?;
            let step = gradient.f_mul(&max_norm.f_div(&gradient.f_norm()?.f_add_scalar_(MIN_DIVISOR)?)?)?;
            let mut original = weight.f_empty_like()?;
            original.f_copy_(weight)?;
            let _ = weight.shallow_clone().f_add_(&step)?;
            perturbed.originals.push((weight.shallow_clone(), original));
        }
        Ok(perturbed)
    })
}

impl PerturbedWeights {
    /// Restores the original weights exactly.
    pub fn restore(self) -> Result<(), TchError> {
        no_grad(|| {
            self.originals.into_iter().try_for_each(|(mut weight, original)| weight.f_copy_(&original))
        })
    }
}
