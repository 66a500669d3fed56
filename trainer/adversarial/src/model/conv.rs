//! Convolutions.

use tch::{TchError, Tensor};

use super::registry::Registry;

/// A 2D convolution with a square kernel.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

/// The geometry of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) channels_in: i64,
    pub(super) channels_out: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) padding: i64,
}

/// Initial distribution of weights.
#[derive(Clone, Copy)]
pub(super) enum WeightInit {
    /// Uniform in ±1/√fan_in: PyTorch's default.
    Uniform,
    /// Normal with variance 2/fan_out (He et al., 2015), as customary for wide residual networks.
    NormalFanOut,
}

impl Conv {
    /// Registers `{name}.weight` with this initial distribution, without bias.
    pub(super) fn with_init(
        registry: &mut Registry,
        name: &str,
        geometry: Geometry,
        init: WeightInit,
    ) -> Result<Self, TchError> {
        match init {
            WeightInit::Uniform => Self::new(registry, name, geometry, false),
            WeightInit::NormalFanOut => {
                let shape = [geometry.channels_out, geometry.channels_in, geometry.kernel, geometry.kernel];
                let deviation =
                    (2.0 / (geometry.channels_out * geometry.kernel * geometry.kernel) as f64).sqrt();
                let weight = registry.normal(format!("{name}.weight"), &shape, deviation)?;
                Ok(Self { weight, bias: None, stride: geometry.stride, padding: geometry.padding })
            }
        }
    }

    /// Registers `{name}.weight` and, if `bias` is set, `{name}.bias`.
    pub(super) fn new(
        registry: &mut Registry,
        name: &str,
        geometry: Geometry,
        bias: bool,
    ) -> Result<Self, TchError> {
        let fan_in = geometry.channels_in * geometry.kernel * geometry.kernel;
        let shape = [geometry.channels_out, geometry.channels_in, geometry.kernel, geometry.kernel];
        let weight = registry.uniform(format!("{name}.weight"), &shape, fan_in)?;
        let bias = if bias {
            Some(registry.uniform(format!("{name}.bias"), &[geometry.channels_out], fan_in)?)
        } else {
            None
        };
        Ok(Self { weight, bias, stride: geometry.stride, padding: geometry.padding })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.f_conv2d(&self.weight, self.bias.as_ref(), stride, padding, [1, 1], 1)
    }
}
