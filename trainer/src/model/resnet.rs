//! ResNet-18 (He et al., 2016) in the form that is customary for CIFAR: a 3×3 stem with stride 1 and no pooling before
//! the blocks. Names and shapes are those of RobustBench's `ResNet`.

use tch::{TchError, Tensor};

use super::{
    Mode,
    batch_norm::BatchNorm,
    conv::{Conv, Geometry},
    linear::Linear,
    registry::Registry,
};

/// Channels of the four layers, and the stride of their first blocks.
const LAYERS: [(i64, i64); 4] = [(64, 1), (128, 2), (256, 2), (512, 2)];
const BLOCKS_PER_LAYER: usize = 2;

#[derive(Debug)]
pub(super) struct Resnet18 {
    conv1: Conv,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    linear: Linear,
}

impl Resnet18 {
    pub(super) fn new(registry: &mut Registry, channels: i64, classes: i64) -> Result<Self, TchError> {
        let [(stem, _), .., (last, _)] = LAYERS;
        let conv1 = Conv::new(registry, "conv1", three_by_three(channels, stem, 1), false)?;
        let bn1 = BatchNorm::new(registry, "bn1", stem)?;
        let mut blocks = Vec::new();
        let mut from = stem;
        for (layer, (to, stride)) in LAYERS.into_iter().enumerate() {
            for block in 0..BLOCKS_PER_LAYER {
                let stride = if block == 0 { stride } else { 1 };
                let name = format!("layer{}.{block}", layer + 1);
                blocks.push(Block::new(registry, &name, from, to, stride)?);
                from = to;
            }
        }
        Ok(Self { conv1, bn1, blocks, linear: Linear::new(registry, "linear", last, classes)? })
    }

    pub(super) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let stem = self.bn1.forward(&self.conv1.forward(images)?, mode)?.f_relu_()?;
        let features = self.blocks.iter().try_fold(stem, |x, block| block.forward(&x, mode))?;
        self.linear.forward(&features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?)
    }
}

fn three_by_three(channels_in: i64, channels_out: i64, stride: i64) -> Geometry {
    Geometry { channels_in, channels_out, kernel: 3, stride, padding: 1 }
}

/// Two convolutions beside a shortcut, which is a 1×1 convolution where the shape changes.
#[derive(Debug)]
struct Block {
    conv1: Conv,
    bn1: BatchNorm,
    conv2: Conv,
    bn2: BatchNorm,
    shortcut: Option<(Conv, BatchNorm)>,
}

impl Block {
    fn new(registry: &mut Registry, name: &str, from: i64, to: i64, stride: i64) -> Result<Self, TchError> {
        let conv1 = Conv::new(registry, &format!("{name}.conv1"), three_by_three(from, to, stride), false)?;
        let bn1 = BatchNorm::new(registry, &format!("{name}.bn1"), to)?;
        let conv2 = Conv::new(registry, &format!("{name}.conv2"), three_by_three(to, to, 1), false)?;
        let bn2 = BatchNorm::new(registry, &format!("{name}.bn2"), to)?;
        let shortcut = if stride != 1 || from != to {
            let geometry = Geometry { channels_in: from, channels_out: to, kernel: 1, stride, padding: 0 };
            let conv = Conv::new(registry, &format!("{name}.shortcut.0"), geometry, false)?;
            Some((conv, BatchNorm::new(registry, &format!("{name}.shortcut.1"), to)?))
        } else {
            None
        };
        Ok(Self { conv1, bn1, conv2, bn2, shortcut })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let y = self.bn1.forward(&self.conv1.forward(x)?, mode)?.f_relu_()?;
        let mut y = self.bn2.forward(&self.conv2.forward(&y)?, mode)?;
        let _ = match &self.shortcut {
            Some((conv, bn)) => y.f_add_(&bn.forward(&conv.forward(x)?, mode)?)?,
            None => y.f_add_(x)?,
        };
        y.f_relu_()
    }
}
