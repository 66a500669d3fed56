use datjob_api::training::Activation;
use tch::{TchError, Tensor};

/// The activation of a tensor that is needed no more; in place.
pub(super) fn activate(activation: Activation, mut x: Tensor) -> Result<Tensor, TchError> {
    match activation {
        Activation::ReLU => x.f_relu_(),
        Activation::SiLU => x.f_silu_(),
    }
}
