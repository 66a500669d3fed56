use datjob_api::training;
use tch::{TchError, Tensor, no_grad};

use super::{adapts, ratio};
use crate::state_dict::StateDict;

const MOMENTUM: &str = "momentum.";

/// LARS (You et al., arXiv 1708.03888, algorithm 1): v ← μv + η · c ‖θ‖ / (‖g‖ + λ‖θ‖) · (g + λθ); θ ← θ − v, for each
/// parameter by itself, c the trust coefficient. Where a length is 0 the rate is η.
#[derive(Debug)]
pub struct Lars {
    momentum: f64,
    weight_decay: f64,
    trust: f64,
    adaptation: training::Adaptation,
    parameters: Vec<(String, Tensor, Tensor)>,
}

impl Lars {
    /// An optimizer of these parameters.
    pub fn new(parameters: StateDict, spec: &training::Lars) -> Result<Self, TchError> {
        let training::Lars { momentum, weight_decay, trust, adaptation, .. } = *spec;
        let parameters = parameters.into_iter().map(|(name, value)| {
            let velocity = no_grad(|| value.f_zeros_like())?;
            Ok((name, value, velocity))
        });
        let parameters = parameters.collect::<Result<_, TchError>>()?;
        Ok(Self { momentum, weight_decay, trust, adaptation, parameters })
    }

    /// One step along the gradients that the parameters hold.
    pub fn step(&mut self, learning_rate: f64) -> Result<(), TchError> {
        let Self { momentum, weight_decay, trust, adaptation, ref mut parameters } = *self;
        no_grad(|| {
            for (_, value, velocity) in parameters {
                let gradient = value.f_grad()?;
                if !gradient.defined() {
                    continue;
                }
                let mut direction = gradient.f_mul_scalar(learning_rate)?;
                if adapts(adaptation, value) {
                    let (weights, length) = (value.f_norm()?, gradient.f_norm()?);
                    let both = weights.f_mul(&length)?.f_gt(0.0)?;
                    let denominator = weights.f_mul_scalar(weight_decay)?.f_add_(&length)?;
                    let local = ratio(&weights, &denominator)?.f_mul_scalar_(trust)?;
                    let local = local.f_where_self(&both, &local.f_ones_like()?)?;
                    let sum = value.f_mul_scalar(weight_decay)?.f_add_(&gradient)?;
                    direction = sum.f_mul(&local)?.f_mul_scalar_(learning_rate)?;
                }
                let _ = velocity.f_mul_scalar_(momentum)?.f_add_(&direction)?;
                let _ = value.f_sub_(velocity)?;
            }
            Ok(())
        })
    }

    /// The momentum buffers, named `momentum.` and the parameter; handles to the live tensors.
    pub fn state(&self) -> StateDict {
        let named = |(name, _, velocity): &(String, Tensor, Tensor)| {
            (format!("{MOMENTUM}{name}"), velocity.shallow_clone())
        };
        self.parameters.iter().map(named).collect()
    }
}
