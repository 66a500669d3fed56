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
    pub(super) fn new(registry: &mut Registry, name: &str, from: i64, to: i64) -> Result<Self, TchError> {
        let weight = registry.uniform(format!("{name}.weight"), &[to, from], from)?;
        let bias = registry.uniform(format!("{name}.bias"), &[to], from)?;
        Ok(Self { weight, bias })
    }

    /// The same with a bias of zeros.
    pub(super) fn with_zero_bias(
        registry: &mut Registry,
        name: &str,
        from: i64,
        to: i64,
    ) -> Result<Self, TchError> {
        let weight = registry.uniform(format!("{name}.weight"), &[to, from], from)?;
        let bias = registry.constant(format!("{name}.bias"), to, 0.0)?;
        Ok(Self { weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, Some(&self.bias))
    }
}
