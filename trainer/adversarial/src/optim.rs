//! The optimizer and the learning rate over time.

use datjob_api::training;
use tch::{TchError, Tensor};

use crate::{model::ModelError, state_dict::StateDict};

mod lars;
mod moments;
mod schedule;
mod sgd;

pub use lars::Lars;
pub use moments::{Moments, Rule};
pub use schedule::learning_rate;
pub use sgd::Sgd;

/// Changes parameters along their gradients.
#[derive(Debug)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// AdamW and LAMB.
    Moments(Moments),
    /// LARS.
    Lars(Lars),
}

impl Optimizer {
    /// An optimizer of these parameters, as [`crate::model::Network::parameters`] gives them; after their memory format
    /// was chosen, which the state follows.
    pub fn new(parameters: StateDict, spec: &training::Optimizer) -> Result<Self, TchError> {
        Ok(match spec {
            training::Optimizer::Sgd(spec) => Self::Sgd(Sgd::new(parameters, spec)?),
            training::Optimizer::AdamW(spec) => Self::Moments(Moments::adam_w(parameters, spec)?),
            training::Optimizer::Lamb(spec) => Self::Moments(Moments::lamb(parameters, spec)?),
            training::Optimizer::Lars(spec) => Self::Lars(Lars::new(parameters, spec)?),
        })
    }

    /// Step `number` (counted from 1 since the optimizer began) along the gradients that the parameters hold. A parameter without
    /// gradient stays as it is.
    pub fn step(&mut self, learning_rate: f64, number: u64) -> Result<(), TchError> {
        match self {
            Self::Sgd(sgd) => sgd.step(learning_rate),
            Self::Moments(moments) => moments.step(learning_rate, number),
            Self::Lars(lars) => lars.step(learning_rate),
        }
    }

    /// What it remembers; handles to the live tensors.
    pub fn state(&self) -> StateDict {
        match self {
            Self::Sgd(sgd) => sgd.state(),
            Self::Moments(moments) => moments.state(),
            Self::Lars(lars) => lars.state(),
        }
    }

    /// Takes over a state: exactly the names and shapes of [`Optimizer::state`].
    pub fn load_state(&self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<(), ModelError> {
        crate::model::copy_state(&self.state(), state)
    }
}

/// Sets gradients to zero, in place: a Reducer's buckets are views of them.
pub fn zero_gradients(parameters: &[(String, Tensor)]) -> Result<(), TchError> {
    parameters.iter().try_for_each(|(_, parameter)| {
        let mut gradient = parameter.f_grad()?;
        if gradient.defined() { gradient.f_zero_().map(drop) } else { Ok(()) }
    })
}

/// Whether a layer-wise rate and weight decay are for a parameter.
fn adapts(adaptation: training::Adaptation, parameter: &Tensor) -> bool {
    adaptation == training::Adaptation::Paper || parameter.dim() > 1
}

/// `numerator` / `denominator`, or 1 where either is 0: zero-initialised parameters would never move otherwise.
fn ratio(numerator: &Tensor, denominator: &Tensor) -> Result<Tensor, TchError> {
    let both = numerator.f_mul(denominator)?.f_gt(0.0)?;
    let one = numerator.f_ones_like()?;
    // Where there is nothing to divide by, 1 stands in for it, so that no NaN comes up.
    numerator.f_div(&denominator.f_where_self(&both, &one)?)?.f_where_self(&both, &one)
}
