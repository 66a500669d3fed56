//! ResNet-18, -34 and -50 (He et al., "Deep Residual Learning for Image Recognition", 2016). The CIFAR variant has
//! RobustBench's names, the ImageNet variant torchvision's. The stride of a bottleneck block is in its 3×3 convolution, as
//! in both.

use datjob_api::training::{Activation, Stem};
use tch::{TchError, Tensor};

use super::{
    Mode,
    activation::activate,
    batch_norm::BatchNorm,
    conv::{Conv, Geometry},
    linear::Linear,
    registry::Registry,
};

/// Channels inside the blocks of the four layers, and the stride of their first blocks.
const LAYERS: [(i64, i64); 4] = [(64, 1), (128, 2), (256, 2), (512, 2)];

/// The number and kind of a ResNet's blocks.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) blocks: [usize; 4],
    pub(super) bottleneck: bool,
}

pub(super) const RESNET_18: Shape = Shape { blocks: [2, 2, 2, 2], bottleneck: false };
pub(super) const RESNET_34: Shape = Shape { blocks: [3, 4, 6, 3], bottleneck: false };
pub(super) const RESNET_50: Shape = Shape { blocks: [3, 4, 6, 3], bottleneck: true };

/// Output channels of a block per channel inside it.
fn expansion(bottleneck: bool) -> i64 {
    if bottleneck { 4 } else { 1 }
}

#[derive(Debug)]
pub(super) struct Resnet {
    conv1: Conv,
    bn1: BatchNorm,
    max_pool: bool,
    blocks: Vec<Block>,
    head: Linear,
    activation: Activation,
}

impl Resnet {
    pub(super) fn new(
        registry: &mut Registry,
        shape: Shape,
        stem: Stem,
        activation: Activation,
        channels: i64,
        classes: i64,
    ) -> Result<Self, TchError> {
        let (kernel, stride, shortcut, head) = match stem {
            Stem::Cifar => (3, 1, "shortcut", "linear"),
            Stem::ImageNet => (7, 2, "downsample", "fc"),
        };
        let [(first, _), .., (last, _)] = LAYERS;
        let padding = kernel / 2;
        let geometry = Geometry { channels_in: channels, channels_out: first, kernel, stride, padding };
        let conv1 = Conv::new(registry, "conv1", geometry, false)?;
        let bn1 = BatchNorm::new(registry, "bn1", first)?;
        let mut blocks = Vec::new();
        let mut channels_in = first;
        for (layer, ((inside, stride), count)) in LAYERS.into_iter().zip(shape.blocks).enumerate() {
            for block in 0..count {
                let stride = if block == 0 { stride } else { 1 };
                let name = format!("layer{}.{block}", layer + 1);
                blocks.push(Block::new(
                    registry,
                    &name,
                    shortcut,
                    BlockShape { channels_in, inside, stride, bottleneck: shape.bottleneck },
                    activation,
                )?);
                channels_in = inside * expansion(shape.bottleneck);
            }
        }
        let head = Linear::new(registry, head, last * expansion(shape.bottleneck), classes)?;
        Ok(Self { conv1, bn1, max_pool: stem == Stem::ImageNet, blocks, head, activation })
    }

    pub(super) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let stem = self.bn1.forward(&self.conv1.forward(images)?, mode)?;
        let mut x = activate(self.activation, stem)?;
        if self.max_pool {
            x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        }
        let features = self.blocks.iter().try_fold(x, |x, block| block.forward(&x, mode))?;
        self.head.forward(&features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?)
    }
}

/// The shape of a block.
#[derive(Clone, Copy)]
struct BlockShape {
    channels_in: i64,
    /// Channels of its first convolution.
    inside: i64,
    stride: i64,
    bottleneck: bool,
}

/// Convolutions and a shortcut. The shortcut is a 1×1 convolution if the shape changes.
#[derive(Debug)]
struct Block {
    /// The convolutions, each with its BatchNorm. The activation is between them and after the sum.
    layers: Vec<(Conv, BatchNorm)>,
    shortcut: Option<(Conv, BatchNorm)>,
    activation: Activation,
}

impl Block {
    fn new(
        registry: &mut Registry,
        name: &str,
        shortcut: &str,
        shape: BlockShape,
        activation: Activation,
    ) -> Result<Self, TchError> {
        let BlockShape { channels_in: from, inside, stride, bottleneck } = shape;
        let to = inside * expansion(bottleneck);
        let geometry = |channels_in, channels_out, kernel, stride| Geometry {
            channels_in,
            channels_out,
            kernel,
            stride,
            padding: kernel / 2,
        };
        let geometries = if bottleneck {
            vec![
                geometry(from, inside, 1, 1),
                geometry(inside, inside, 3, stride),
                geometry(inside, to, 1, 1),
            ]
        } else {
            vec![geometry(from, inside, 3, stride), geometry(inside, to, 3, 1)]
        };
        let mut layers = Vec::new();
        for (index, geometry) in geometries.into_iter().enumerate() {
            let conv = Conv::new(registry, &format!("{name}.conv{}", index + 1), geometry, false)?;
            let norm = BatchNorm::new(registry, &format!("{name}.bn{}", index + 1), geometry.channels_out)?;
            layers.push((conv, norm));
        }
        let shortcut = if stride != 1 || from != to {
            let conv =
                Conv::new(registry, &format!("{name}.{shortcut}.0"), geometry(from, to, 1, stride), false)?;
            Some((conv, BatchNorm::new(registry, &format!("{name}.{shortcut}.1"), to)?))
        } else {
            None
        };
        Ok(Self { layers, shortcut, activation })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut y = x.shallow_clone();
        for (index, (conv, norm)) in self.layers.iter().enumerate() {
            if index > 0 {
                y = activate(self.activation, y)?;
            }
            y = norm.forward(&conv.forward(&y)?, mode)?;
        }
        let _ = match &self.shortcut {
            Some((conv, norm)) => y.f_add_(&norm.forward(&conv.forward(x)?, mode)?)?,
            None => y.f_add_(x)?,
        };
        activate(self.activation, y)
    }
}
