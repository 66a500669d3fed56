//! Linear layers.

use tch::{TchError, Tensor};

use super::registry::Registry;

/// A linear layer with bias.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Registers `{name}.weight` and `{name}.bias`.
    pub(super) fn new(
        registry: &mut Registry,
        name: &str,
        features_in: i64,
        features_out: i64,
    ) -> Result<Self, TchError> {
        let weight = registry.uniform(format!("{name}.weight"), &[features_out, features_in], features_in)?;
        let bias = registry.uniform(format!("{name}.bias"), &[features_out], features_in)?;
        Ok(Self { weight, bias })
    }

    /// [`new`](Self::new) with a zero bias.
    pub(super) fn with_zero_bias(
        registry: &mut Registry,
        name: &str,
        features_in: i64,
        features_out: i64,
    ) -> Result<Self, TchError> {
        let weight = registry.uniform(format!("{name}.weight"), &[features_out, features_in], features_in)?;
        let bias = registry.constant(format!("{name}.bias"), features_out, 0.0)?;
        Ok(Self { weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, Some(&self.bias))
    }
}
