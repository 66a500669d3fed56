//! Optimizers that use Adam's moments: AdamW and LAMB.

use datjob_api::training;
use tch::{TchError, Tensor, no_grad};

use super::{is_adapted, trust_ratio};
use crate::state_dict::StateDict;

/// Upper bound of a layer's weight norm (c_u of the paper; LAMB's φ).
const MAX_WEIGHT_NORM: f64 = 10.0;

/// Prefixes of the moments' names in the state.
const FIRST: &str = "first.";
const SECOND: &str = "second.";

/// How a parameter is updated from its moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// θ ← θ − η (û + λθ): AdamW (Loshchilov and Hutter, arXiv 1711.05101).
    AdamW,
    /// θ ← θ − η · min(‖θ‖, 10) / ‖û + λθ‖ · (û + λθ) for each parameter: LAMB (You et al., arXiv 1904.00962, algorithm 2)
    /// and the layer-wise adaptive learning rate of distributed adversarial training (arXiv 2206.06257, equation 5). If
    /// either norm is 0, the ratio is 1.
    Lamb(training::Adaptation),
}

/// An optimizer that uses Adam's direction û = m̂ / (√v̂ + ε). m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) are the
/// bias-corrected means of gradients and of their squares.
#[derive(Debug)]
pub struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    rule: UpdateRule,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    value: Tensor,
    first: Tensor,
    second: Tensor,
}

impl Adam {
    /// AdamW.
    pub fn adam_w(parameters: StateDict, spec: &training::AdamW) -> Result<Self, TchError> {
        let training::AdamW { beta1, beta2, weight_decay, .. } = *spec;
        Self::new(parameters, beta1, beta2, spec.epsilon(), weight_decay, UpdateRule::AdamW)
    }

    /// LAMB.
    pub fn lamb(parameters: StateDict, spec: &training::Lamb) -> Result<Self, TchError> {
        let training::Lamb { beta1, beta2, weight_decay, adaptation, .. } = *spec;
        Self::new(parameters, beta1, beta2, spec.epsilon(), weight_decay, UpdateRule::Lamb(adaptation))
    }

    fn new(
        parameters: StateDict,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,
        rule: UpdateRule,
    ) -> Result<Self, TchError> {
        let parameters = parameters.into_iter().map(|(name, value)| {
            let zeros = || no_grad(|| value.f_zeros_like());
            Ok(Parameter { name, first: zeros()?, second: zeros()?, value })
        });
        let parameters = parameters.collect::<Result<_, TchError>>()?;
        Ok(Self { beta1, beta2, epsilon, weight_decay, rule, parameters })
    }

    /// Performs step `number`, counted from 1.
    pub fn step(&mut self, learning_rate: f64, number: u64) -> Result<(), TchError> {
        let Self { beta1, beta2, epsilon, weight_decay, rule, ref mut parameters } = *self;
        let number = number.min(i32::MAX as u64) as i32;
        let (correction1, correction2) = (1.0 - beta1.powi(number), 1.0 - beta2.powi(number));
        no_grad(|| {
            for Parameter { value, first, second, .. } in parameters {
                let gradient = value.f_grad()?;
                if !gradient.defined() {
                    continue;
                }
                let _ = first.f_mul_scalar_(beta1)?.f_add_(&gradient.f_mul_scalar(1.0 - beta1)?)?;
                let squares = gradient.f_square()?.f_mul_scalar_(1.0 - beta2)?;
                let _ = second.f_mul_scalar_(beta2)?.f_add_(&squares)?;
                let denominator = second.f_div_scalar(correction2)?.f_sqrt_()?.f_add_scalar_(epsilon)?;
                let mut direction = first.f_div_scalar(correction1)?.f_div_(&denominator)?;
                let decays = match rule {
                    UpdateRule::AdamW => true,
                    UpdateRule::Lamb(adaptation) => is_adapted(adaptation, value),
                };
                if decays {
                    direction = direction.f_add_(&value.f_mul_scalar(weight_decay)?)?;
                }
                if let UpdateRule::Lamb(adaptation) = rule
                    && is_adapted(adaptation, value)
                {
                    let trust =
                        trust_ratio(&value.f_norm()?.f_clamp_max(MAX_WEIGHT_NORM)?, &direction.f_norm()?)?;
                    direction = direction.f_mul_(&trust)?;
                }
                let _ = value.f_sub_(&direction.f_mul_scalar_(learning_rate)?)?;
            }
            Ok(())
        })
    }

    /// The moments, named `first.` or `second.` followed by the parameter's name; handles to the live tensors.
    pub fn state(&self) -> StateDict {
        let named = |prefix: &'static str, moment: fn(&Parameter) -> &Tensor| {
            self.parameters.iter().map(move |parameter| {
                (format!("{prefix}{}", parameter.name), moment(parameter).shallow_clone())
            })
        };
        named(FIRST, |parameter| &parameter.first)
            .chain(named(SECOND, |parameter| &parameter.second))
            .collect()
    }
}
