//! `model`: architecture and initial weights of the network.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Dataset, FileSource, rules::Rule};

/// Network to train.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// Architecture: small-cnn, resnet18, resnet34, resnet50, preact-resnet18 or wide-resnet-DEPTH-WIDTH, for example
    /// wide-resnet-28-10. DEPTH is 6n + 4, from 10 to 106; WIDTH is from 1 to 20. The input is pixels in [0, 1].
    pub architecture: Architecture,
    /// First layers of resnet18, resnet34 and resnet50: Cifar (3×3 convolution) or ImageNet (7×7 convolution with
    /// stride 2, then pooling). Parameter names are RobustBench's for Cifar and torchvision's for ImageNet. Defaults to
    /// Cifar.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stem: Stem,
    /// Activation function: ReLU or SiLU. Defaults to ReLU.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activation: Activation,
    /// Normalization of pixels inside the network: None, or Dataset (per channel, by the data set's mean and standard
    /// deviation; ImageNet's for image-folder and webdataset). Attacks differentiate through it. Defaults to None.
    #[serde(default, skip_serializing_if = "is_default")]
    pub normalization: Normalization,
    /// Initial weights for fine-tuning. Random if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<InitialWeights>,
}

/// Initial weights instead of random ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InitialWeights {
    /// File of the weights: safetensors (for example `status.results.weights` on the checkpoint volume of another job),
    /// or a state dict from torch.save, whose pickle is never executed. `dat-trainer run --initial-weights FILE`
    /// overrides it.
    pub source: FileSource,
    /// Whether to start with a new last layer even if the number of classes matches the data set. A last layer with
    /// another number of classes is always replaced. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_head: bool,
}

/// Whether a field has its default. The JSON then omits it, so that hashes of older specs do not change.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Architecture> for Model {
    fn from(architecture: Architecture) -> Self {
        Self {
            architecture,
            stem: Stem::default(),
            activation: Activation::default(),
            normalization: Normalization::default(),
            initial_weights: None,
        }
    }
}

/// The architecture of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Two convolutions and two linear layers, for 28×28 or 32×32 images; trains on a CPU in minutes.
    SmallCnn,
    /// ResNet-18 (He et al., "Deep Residual Learning for Image Recognition").
    Resnet18,
    /// ResNet-34.
    Resnet34,
    /// ResNet-50, of bottleneck blocks.
    Resnet50,
    /// ResNet-18 with pre-activation (He et al., "Identity Mappings in Deep Residual Networks").
    PreactResnet18,
    /// A wide residual network (Zagoruyko and Komodakis), as in WRN-28-10.
    WideResnet {
        /// Layers: 6n + 4.
        depth: u16,
        /// Widening factor.
        width: u16,
    },
}

/// Maximum depth of a wide residual network.
const MAX_DEPTH: u16 = 106;
/// Maximum widening factor.
const MAX_WIDTH: u16 = 20;
const WIDE_RESNET_PREFIX: &str = "wide-resnet-";
/// Pattern of the schema. [`Architecture::from_str`] also checks depth and width.
pub(crate) const PATTERN: &str =
    "^(small-cnn|resnet18|resnet34|resnet50|preact-resnet18|wide-resnet-[1-9][0-9]{1,2}-[1-9][0-9]?)$";

impl Architecture {
    const NAMED: [(&'static str, Self); 5] = [
        ("small-cnn", Self::SmallCnn),
        ("resnet18", Self::Resnet18),
        ("resnet34", Self::Resnet34),
        ("resnet50", Self::Resnet50),
        ("preact-resnet18", Self::PreactResnet18),
    ];

    /// Whether the stem is configurable.
    pub fn has_variable_stem(self) -> bool {
        matches!(self, Self::Resnet18 | Self::Resnet34 | Self::Resnet50)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WideResnet { depth, width } => write!(f, "{WIDE_RESNET_PREFIX}{depth}-{width}"),
            named => {
                let name = Self::NAMED.iter().find(|(_, one)| one == named).map_or("", |(name, _)| name);
                f.write_str(name)
            }
        }
    }
}

/// An unknown architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown architecture {0:?}; expected one of small-cnn, resnet18, resnet34, resnet50, preact-resnet18, \
     wide-resnet-DEPTH-WIDTH (DEPTH 6n + 4 from 10 to {MAX_DEPTH}, WIDTH from 1 to {MAX_WIDTH})"
)]
pub struct UnknownArchitecture(String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(text: &str) -> Result<Self, UnknownArchitecture> {
        if let Some((_, architecture)) = Self::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*architecture);
        }
        let wide = text.strip_prefix(WIDE_RESNET_PREFIX).and_then(|numbers| numbers.split_once('-'));
        let number = |digits: &str| digits.parse::<u16>().ok().filter(|number| number.to_string() == digits);
        if let Some((Some(depth), Some(width))) = wide.map(|(depth, width)| (number(depth), number(width)))
            && (10..=MAX_DEPTH).contains(&depth)
            && depth % 6 == 4
            && (1..=MAX_WIDTH).contains(&width)
        {
            return Ok(Self::WideResnet { depth, width });
        }
        Err(UnknownArchitecture(text.to_owned()))
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// First layers of a ResNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stem {
    /// 3×3 convolution with stride 1, for small images.
    #[default]
    Cifar,
    /// 7×7 convolution with stride 2, then 3×3 max-pooling with stride 2.
    ImageNet,
}

/// Activation function of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Activation {
    /// max(x, 0).
    #[default]
    ReLU,
    /// x · sigmoid(x), also called swish: gives the attack smoother gradients (Gowal et al., arXiv 2010.03593).
    SiLU,
}

/// Normalization of pixels inside the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Normalization {
    /// No normalization.
    #[default]
    None,
    /// Subtracts the data set's mean and divides by its standard deviation, per channel.
    Dataset,
}

impl Normalization {
    /// Mean and standard deviation of each channel of a data set's training images, with pixels in [0, 1].
    pub fn statistics(self, dataset: Dataset) -> Option<(&'static [f64], &'static [f64])> {
        match (self, dataset) {
            (Self::None, _) => None,
            (Self::Dataset, Dataset::Mnist) => Some((&[0.1307], &[0.3081])),
            (Self::Dataset, Dataset::FashionMnist) => Some((&[0.2860], &[0.3530])),
            (Self::Dataset, Dataset::Cifar10) => Some((&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616])),
            (Self::Dataset, Dataset::Cifar100) => {
                Some((&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]))
            }
            // Statistics of ImageNet, for all encoded images.
            (Self::Dataset, Dataset::ImageFolder | Dataset::Webdataset) => {
                Some((&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]))
            }
        }
    }
}

/// Rules of a network. A teacher is one too.
pub(super) const RULES: [Rule<Model>; 1] = [Rule {
    field: "stem",
    problem: "stem requires architecture resnet18, resnet34 or resnet50; use one of them, or remove stem",
    cel: Some(
        "!has(self.stem) || self.stem == 'Cifar' || self.architecture in ['resnet18', 'resnet34', 'resnet50']",
    ),
    holds: |model| model.stem == Stem::default() || model.architecture.has_variable_stem(),
}];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_formats_names() {
        for text in ["small-cnn", "resnet18", "resnet34", "resnet50", "preact-resnet18", "wide-resnet-28-10"]
        {
            assert_eq!(text.parse::<Architecture>().unwrap().to_string(), text);
        }
        let wide: Architecture = serde_json::from_str("\"wide-resnet-34-20\"").unwrap();
        assert_eq!(wide, Architecture::WideResnet { depth: 34, width: 20 });
    }

    #[test]
    fn rejects_unknown_architectures_with_the_known_ones() {
        for text in [
            "resnet1",
            "ResNet18",
            "wide-resnet",
            "wide-resnet-27-10",
            "wide-resnet-028-10",
            "wide-resnet-28-0",
            "wide-resnet-112-1",
            "wide-resnet-28-21",
            "wide-resnet-28-10-1",
            "",
        ] {
            let sentence = text.parse::<Architecture>().unwrap_err().to_string();
            assert!(sentence.contains("wide-resnet-DEPTH-WIDTH") && sentence.contains(text), "{sentence}");
        }
    }

    #[test]
    fn defaults_are_not_serialized() {
        let model = Model::from(Architecture::SmallCnn);
        assert_eq!(serde_json::to_string(&model).unwrap(), r#"{"architecture":"small-cnn"}"#);
    }

    #[test]
    fn statistics_have_one_value_per_channel() {
        for dataset in Dataset::ALL {
            let (mean, deviation) = Normalization::Dataset.statistics(dataset).unwrap();
            let channels = dataset.channels() as usize;
            assert_eq!((mean.len(), deviation.len()), (channels, channels));
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Architecture>();
        }
    }
}
