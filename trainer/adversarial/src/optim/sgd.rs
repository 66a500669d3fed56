//! Stochastic gradient descent.

use datjob_api::training;
use tch::{TchError, Tensor, no_grad};

use crate::state_dict::StateDict;

/// Prefix of the momentum buffers' names in the state.
const MOMENTUM: &str = "momentum.";

/// Stochastic gradient descent as PyTorch's `torch.optim.SGD` defines it, without dampening:
///
/// d = g + λθ; v ← μv + d (v = d in the first step); θ ← θ − η(d + μv) with Nesterov, θ ← θ − ηv without.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    value: Tensor,
    /// v. It starts at zero, which gives v = d in the first step, and the state has the same tensors at all times.
    velocity: Tensor,
}

impl Sgd {
    /// An optimizer of these parameters, as [`crate::model::Network::parameters`] returns them. Choose their memory format
    /// first: the momentum buffers have the same.
    pub fn new(parameters: StateDict, spec: &training::Sgd) -> Result<Self, TchError> {
        let parameters = parameters.into_iter().map(|(name, value)| {
            let velocity = no_grad(|| value.f_zeros_like())?;
            Ok(Parameter { name, value, velocity })
        });
        Ok(Self {
            momentum: spec.momentum,
            nesterov: spec.nesterov,
            weight_decay: spec.weight_decay,
            parameters: parameters.collect::<Result<_, TchError>>()?,
        })
    }

    /// Performs one step. A parameter without gradient does not change.
    pub fn step(&mut self, learning_rate: f64) -> Result<(), TchError> {
        let Self { momentum, nesterov, weight_decay, ref mut parameters } = *self;
        no_grad(|| {
            for Parameter { value, velocity, .. } in parameters {
                let gradient = value.f_grad()?;
                if !gradient.defined() {
                    continue;
                }
                let mut direction = value.f_mul_scalar(weight_decay)?.f_add_(&gradient)?;
                let _ = velocity.f_mul_scalar_(momentum)?.f_add_(&direction)?;
                if nesterov {
                    let _ = direction.f_add_(&velocity.f_mul_scalar(momentum)?)?;
                    let _ = value.f_sub_(&direction.f_mul_scalar_(learning_rate)?)?;
                } else {
                    let _ = value.f_sub_(&velocity.f_mul_scalar(learning_rate)?)?;
                }
            }
            Ok(())
        })
    }

    /// The momentum buffers, named `momentum.` followed by the parameter's name; handles to the live tensors.
    pub fn state(&self) -> StateDict {
        self.parameters
            .iter()
            .map(|parameter| (format!("{MOMENTUM}{}", parameter.name), parameter.velocity.shallow_clone()))
            .collect()
    }
}
