//! The small CNN for MNIST.

use datjob_api::training::Activation;
use tch::{TchError, Tensor};

use super::{
    activation::activate,
    conv::{Conv, Geometry},
    linear::Linear,
    registry::Registry,
};

/// Two convolutions (4×4, stride 2, padding 1) and two linear layers, for small images; without BatchNorm. The network
/// of Wong et al. for MNIST, whose parameters are `conv1`, `conv2`, `fc1`, `fc2`.
#[derive(Debug)]
pub(super) struct SmallCnn {
    conv1: Conv,
    conv2: Conv,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl SmallCnn {
    pub(super) fn new(
        registry: &mut Registry,
        activation: Activation,
        [channels, height, width]: [i64; 3],
        classes: i64,
    ) -> Result<Self, TchError> {
        let halving = |channels_in, channels_out| Geometry {
            channels_in,
            channels_out,
            kernel: 4,
            stride: 2,
            padding: 1,
        };
        Ok(Self {
            conv1: Conv::new(registry, "conv1", halving(channels, 16), true)?,
            conv2: Conv::new(registry, "conv2", halving(16, 32), true)?,
            fc1: Linear::new(registry, "fc1", 32 * (height / 4) * (width / 4), 100)?,
            fc2: Linear::new(registry, "fc2", 100, classes)?,
            activation,
        })
    }

    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let x = activate(self.activation, self.conv1.forward(images)?)?;
        let x = activate(self.activation, self.conv2.forward(&x)?)?;
        // flatten instead of flat_view: a channels_last tensor cannot be viewed flat.
        let x = activate(self.activation, self.fc1.forward(&x.f_flatten(1, -1)?)?)?;
        self.fc2.forward(&x)
    }
}
