//! Networks of pre-activation blocks, in which BatchNorm and activation precede a convolution (He et al., "Identity Mappings in
//! Deep Residual Networks", 2016).

use datjob_api::training::Activation;
use tch::{TchError, Tensor};

use super::{
    Mode,
    activation::activate,
    batch_norm::BatchNorm,
    conv::{Conv, Geometry, WeightInit},
    linear::Linear,
    registry::Registry,
};

/// A network: a 3×3 convolution, blocks, BatchNorm, activation, global average, a linear layer.
#[derive(Debug)]
pub(super) struct Preactivation {
    conv1: Conv,
    blocks: Vec<Block>,
    norm: BatchNorm,
    head: Linear,
    activation: Activation,
}

/// The differences between the families: names of tensors and initial weights.
struct Family {
    /// Name of a block from its layer, counted from 1, and its index in the layer.
    block: fn(usize, usize) -> String,
    shortcut: &'static str,
    norm: &'static str,
    head: &'static str,
    init: WeightInit,
}

/// Pre-activation ResNet-18 with the names of RobustBench's `PreActResNet` of `PreActBlockV2`, with BatchNorm before the
/// linear layer (as in Rice et al., "Overfitting in adversarially robust deep learning").
const PREACT_RESNET: Family = Family {
    block: |layer, block| format!("layer{layer}.{block}"),
    shortcut: "shortcut.0",
    norm: "bn",
    head: "linear",
    init: WeightInit::Uniform,
};

/// Wide residual networks (Zagoruyko and Komodakis, 2016) with the names of RobustBench's `WideResNet`, the one of
/// TRADES; without dropout.
const WIDE_RESNET: Family = Family {
    block: |layer, block| format!("block{layer}.layer.{block}"),
    shortcut: "convShortcut",
    norm: "bn1",
    head: "fc",
    init: WeightInit::NormalFanOut,
};

impl Preactivation {
    /// Pre-activation ResNet-18.
    pub(super) fn resnet18(
        registry: &mut Registry,
        activation: Activation,
        channels: i64,
        classes: i64,
    ) -> Result<Self, TchError> {
        let layers = [(64, 1), (128, 2), (256, 2), (512, 2)];
        Self::new(registry, &PREACT_RESNET, 64, &layers, 2, activation, channels, classes)
    }

    /// A wide residual network of 6n + 4 layers.
    pub(super) fn wide_resnet(
        registry: &mut Registry,
        depth: u16,
        width: u16,
        activation: Activation,
        channels: i64,
        classes: i64,
    ) -> Result<Self, TchError> {
        let width = i64::from(width);
        let layers = [(16 * width, 1), (32 * width, 2), (64 * width, 2)];
        let blocks = usize::from((depth - 4) / 6);
        Self::new(registry, &WIDE_RESNET, 16, &layers, blocks, activation, channels, classes)
    }

    #[allow(clippy::too_many_arguments, reason = "the constructors of the two families above name them")]
    fn new(
        registry: &mut Registry,
        family: &Family,
        first: i64,
        layers: &[(i64, i64)],
        blocks_per_layer: usize,
        activation: Activation,
        channels: i64,
        classes: i64,
    ) -> Result<Self, TchError> {
        let conv1 = Conv::with_init(registry, "conv1", three_by_three(channels, first, 1), family.init)?;
        let mut blocks = Vec::new();
        let mut channels_in = first;
        for (layer, &(channels_out, stride)) in layers.iter().enumerate() {
            for block in 0..blocks_per_layer {
                let stride = if block == 0 { stride } else { 1 };
                let name = (family.block)(layer + 1, block);
                blocks.push(Block::new(
                    registry,
                    family,
                    &name,
                    channels_in,
                    channels_out,
                    stride,
                    activation,
                )?);
                channels_in = channels_out;
            }
        }
        let norm = BatchNorm::new(registry, family.norm, channels_in)?;
        let head = match family.init {
            WeightInit::Uniform => Linear::new(registry, family.head, channels_in, classes)?,
            WeightInit::NormalFanOut => Linear::with_zero_bias(registry, family.head, channels_in, classes)?,
        };
        Ok(Self { conv1, blocks, norm, head, activation })
    }

    pub(super) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let stem = self.conv1.forward(images)?;
        let features = self.blocks.iter().try_fold(stem, |x, block| block.forward(&x, mode))?;
        let features = activate(self.activation, self.norm.forward(&features, mode)?)?;
        self.head.forward(&features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?)
    }
}

fn three_by_three(channels_in: i64, channels_out: i64, stride: i64) -> Geometry {
    Geometry { channels_in, channels_out, kernel: 3, stride, padding: 1 }
}

/// Two convolutions and a shortcut. If the shape changes, the shortcut is a 1×1 convolution of the output of the first
/// BatchNorm and activation.
#[derive(Debug)]
struct Block {
    bn1: BatchNorm,
    conv1: Conv,
    bn2: BatchNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
    activation: Activation,
}

impl Block {
    fn new(
        registry: &mut Registry,
        family: &Family,
        name: &str,
        channels_in: i64,
        channels_out: i64,
        stride: i64,
        activation: Activation,
    ) -> Result<Self, TchError> {
        let bn1 = BatchNorm::new(registry, &format!("{name}.bn1"), channels_in)?;
        let conv1 = Conv::with_init(
            registry,
            &format!("{name}.conv1"),
            three_by_three(channels_in, channels_out, stride),
            family.init,
        )?;
        let bn2 = BatchNorm::new(registry, &format!("{name}.bn2"), channels_out)?;
        let conv2 = Conv::with_init(
            registry,
            &format!("{name}.conv2"),
            three_by_three(channels_out, channels_out, 1),
            family.init,
        )?;
        let shortcut = if stride != 1 || channels_in != channels_out {
            let geometry = Geometry { channels_in, channels_out, kernel: 1, stride, padding: 0 };
            Some(Conv::with_init(registry, &format!("{name}.{}", family.shortcut), geometry, family.init)?)
        } else {
            None
        };
        Ok(Self { bn1, conv1, bn2, conv2, shortcut, activation })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let activated = activate(self.activation, self.bn1.forward(x, mode)?)?;
        let y = self.bn2.forward(&self.conv1.forward(&activated)?, mode)?;
        let y = self.conv2.forward(&activate(self.activation, y)?)?;
        match &self.shortcut {
            Some(conv) => conv.forward(&activated)?.f_add_(&y),
            None => y.f_add(x),
        }
    }
}
