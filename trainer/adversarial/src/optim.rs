//! Optimizers and the learning rate schedule.

use datjob_api::training;
use tch::{TchError, Tensor};

use crate::{model::ModelError, state_dict::StateDict};

mod adam;
mod lars;
mod schedule;
mod sgd;

pub use adam::{Adam, UpdateRule};
pub use lars::Lars;
pub use schedule::learning_rate;
pub use sgd::Sgd;

/// An optimizer of the spec.
#[derive(Debug)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// AdamW and LAMB.
    Adam(Adam),
    /// LARS.
    Lars(Lars),
}

impl Optimizer {
    /// An optimizer of these parameters, as [`crate::model::Network::parameters`] returns them. Choose their memory format
    /// first: the optimizer's state has the same.
    pub fn new(parameters: StateDict, spec: &training::Optimizer) -> Result<Self, TchError> {
        Ok(match spec {
            training::Optimizer::Sgd(spec) => Self::Sgd(Sgd::new(parameters, spec)?),
            training::Optimizer::AdamW(spec) => Self::Adam(Adam::adam_w(parameters, spec)?),
            training::Optimizer::Lamb(spec) => Self::Adam(Adam::lamb(parameters, spec)?),
            training::Optimizer::Lars(spec) => Self::Lars(Lars::new(parameters, spec)?),
        })
    }

    /// Performs step `number`, counted from 1 since the optimizer was created. A parameter without gradient does not change.
    pub fn step(&mut self, learning_rate: f64, number: u64) -> Result<(), TchError> {
        match self {
            Self::Sgd(sgd) => sgd.step(learning_rate),
            Self::Adam(adam) => adam.step(learning_rate, number),
            Self::Lars(lars) => lars.step(learning_rate),
        }
    }

    /// The optimizer's state; handles to the live tensors.
    pub fn state(&self) -> StateDict {
        match self {
            Self::Sgd(sgd) => sgd.state(),
            Self::Adam(adam) => adam.state(),
            Self::Lars(lars) => lars.state(),
        }
    }

    /// Loads a state with exactly the names and shapes of [`Optimizer::state`].
    pub fn load_state(&self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<(), ModelError> {
        crate::model::copy_state(&self.state(), state)
    }
}

/// Sets gradients to zero, in place, because they are views of a Reducer's buckets.
pub fn zero_gradients(parameters: &[(String, Tensor)]) -> Result<(), TchError> {
    parameters.iter().try_for_each(|(_, parameter)| {
        let mut gradient = parameter.f_grad()?;
        if gradient.defined() { gradient.f_zero_().map(drop) } else { Ok(()) }
    })
}

/// Whether a parameter has a layer-wise learning rate and weight decay.
fn is_adapted(adaptation: training::Adaptation, parameter: &Tensor) -> bool {
    adaptation == training::Adaptation::Paper || parameter.dim() > 1
}

/// `numerator` / `denominator`, or 1 if either is 0; otherwise zero-initialised parameters would never change.
fn trust_ratio(numerator: &Tensor, denominator: &Tensor) -> Result<Tensor, TchError> {
    let nonzero = numerator.f_mul(denominator)?.f_gt(0.0)?;
    let one = numerator.f_ones_like()?;
    // A zero divisor is replaced by 1, so that no NaN occurs.
    numerator.f_div(&denominator.f_where_self(&nonzero, &one)?)?.f_where_self(&nonzero, &one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trust_ratio_is_1_if_either_norm_is_0() {
        let (numerator, denominator) = ([3.0, 3.0, 0.0, 0.0], [2.0, 0.0, 2.0, 0.0]);
        let ratio = trust_ratio(&Tensor::from_slice(&numerator), &Tensor::from_slice(&denominator)).unwrap();
        assert_eq!(Vec::<f64>::try_from(ratio).unwrap(), [1.5, 1.0, 1.0, 1.0]);
    }
}
