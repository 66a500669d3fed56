//! Activation functions.

use datjob_api::training::Activation;
use tch::{TchError, Tensor};

/// Applies the activation in place.
pub(super) fn activate(activation: Activation, mut x: Tensor) -> Result<Tensor, TchError> {
    match activation {
        Activation::ReLU => x.f_relu_(),
        Activation::SiLU => x.f_silu_(),
    }
}
