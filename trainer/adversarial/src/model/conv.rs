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

/// How weights begin.
#[derive(Clone, Copy)]
pub(super) enum Initial {
    /// Uniform in ±1/√fan_in: PyTorch's default.
    Uniform,
    /// Normal with variance 2/fan_out (He et al., 2015), as wide residual networks are trained.
    NormalFanOut,
}

impl Conv {
    /// Registers `{name}.weight`, without bias.
    pub(super) fn drawn(
        registry: &mut Registry,
        name: &str,
        g: Geometry,
        initial: Initial,
    ) -> Result<Self, TchError> {
        match initial {
            Initial::Uniform => Self::new(registry, name, g, false),
            Initial::NormalFanOut => {
                let shape = [g.channels_out, g.channels_in, g.kernel, g.kernel];
                let deviation = (2.0 / (g.channels_out * g.kernel * g.kernel) as f64).sqrt();
                let weight = registry.normal(format!("{name}.weight"), &shape, deviation)?;
                Ok(Self { weight, bias: None, stride: g.stride, padding: g.padding })
            }
        }
    }

    /// Registers `{name}.weight` and, if asked for, `{name}.bias`.
    pub(super) fn new(
        registry: &mut Registry,
        name: &str,
        g: Geometry,
        bias: bool,
    ) -> Result<Self, TchError> {
        let fan_in = g.channels_in * g.kernel * g.kernel;
        let shape = [g.channels_out, g.channels_in, g.kernel, g.kernel];
        let weight = registry.uniform(format!("{name}.weight"), &shape, fan_in)?;
        let bias = if bias {
            Some(registry.uniform(format!("{name}.bias"), &[g.channels_out], fan_in)?)
        } else {
            None
        };
        Ok(Self { weight, bias, stride: g.stride, padding: g.padding })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.f_conv2d(&self.weight, self.bias.as_ref(), stride, padding, [1, 1], 1)
    }
}
