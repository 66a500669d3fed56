//! LARS.

use datjob_api::training;
use tch::{TchError, Tensor, no_grad};

use super::{is_adapted, trust_ratio};
use crate::state_dict::StateDict;

/// Prefix of the momentum buffers' names in the state.
const MOMENTUM: &str = "momentum.";

/// LARS (You et al., arXiv 1708.03888, algorithm 1): v ← μv + η · c ‖θ‖ / (‖g‖ + λ‖θ‖) · (g + λθ); θ ← θ − v for each
/// parameter, where c is the trust coefficient. If either norm is 0, the rate is η.
#[derive(Debug)]
pub struct Lars {
    momentum: f64,
    weight_decay: f64,
    trust: f64,
    adaptation: training::Adaptation,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    value: Tensor,
    /// v.
    velocity: Tensor,
}

impl Lars {
    /// An optimizer of these parameters.
    pub fn new(parameters: StateDict, spec: &training::Lars) -> Result<Self, TchError> {
        let training::Lars { momentum, weight_decay, trust, adaptation, .. } = *spec;
        let parameters = parameters.into_iter().map(|(name, value)| {
            let velocity = no_grad(|| value.f_zeros_like())?;
            Ok(Parameter { name, value, velocity })
        });
        let parameters = parameters.collect::<Result<_, TchError>>()?;
        Ok(Self { momentum, weight_decay, trust, adaptation, parameters })
    }

    /// Performs one step. A parameter without gradient does not change.
    pub fn step(&mut self, learning_rate: f64) -> Result<(), TchError> {
        let Self { momentum, weight_decay, trust, adaptation, ref mut parameters } = *self;
        no_grad(|| {
            for Parameter { value, velocity, .. } in parameters {
                let gradient = value.f_grad()?;
                if !gradient.defined() {
                    continue;
                }
                let mut direction = gradient.f_mul_scalar(learning_rate)?;
                if is_adapted(adaptation, value) {
                    let (weight_norm, gradient_norm) = (value.f_norm()?, gradient.f_norm()?);
                    let nonzero = weight_norm.f_mul(&gradient_norm)?.f_gt(0.0)?;
                    let denominator = weight_norm.f_mul_scalar(weight_decay)?.f_add_(&gradient_norm)?;
                    let local = trust_ratio(&weight_norm, &denominator)?.f_mul_scalar_(trust)?;
                    let local = local.f_where_self(&nonzero, &local.f_ones_like()?)?;
                    let sum = value.f_mul_scalar(weight_decay)?.f_add_(&gradient)?;
                    direction = sum.f_mul(&local)?.f_mul_scalar_(learning_rate)?;
                }
                let _ = velocity.f_mul_scalar_(momentum)?.f_add_(&direction)?;
                let _ = value.f_sub_(velocity)?;
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
