use serde::{Deserialize, Serialize};

use super::{Additional, Dataset, Source};

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// The data set.
    pub dataset: Dataset,
    /// Side of the square that images of image-folder and webdataset are brought to, in pixels; 224 where absent. The
    /// other data sets have a size of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 8, max = 1024)))]
    pub image_size: Option<u32>,
    /// Where its standard files come from. `dat-trainer run --data DIR` takes the folder instead.
    pub source: Source,
    /// Training images that are held back.
    #[serde(default)]
    pub validation: Validation,
    /// How training images are varied.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Images beside those of the data set, for training alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional: Option<Additional>,
}

/// Training images that are held back, drawn by the seed and never augmented: the only images that choose anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Validation {
    /// How many.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 40_000)))]
    pub count: u32,
}

/// How training images are varied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Augmentation {
    /// Pad by so many pixels of zeros, then crop at random; where absent 4 for CIFAR and 0 for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 16)))]
    pub crop: Option<u32>,
    /// Flip every other image left to right at random; where absent true but for MNIST, whose digits have no mirror
    /// image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<bool>,
    /// Cut a random part out of the image and bring it to the image's size, as is customary for ImageNet. The default of
    /// image-folder and webdataset, where `crop` is absent too; goes without `crop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Set a square of so many pixels a side to zero, around a random pixel (DeVries and Taylor, arXiv 1708.04552); parts
    /// beyond the edge are lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1024)))]
    pub cutout: Option<u32>,
    /// Put a part of another training image into each, and train on both labels in proportion (CutMix, Yun et al., arXiv
    /// 1905.04899); goes with objective.crossEntropy and objective.trades, without smoothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_mix: Option<CutMix>,
}

/// How much of an image is another's: before the part is cut at the edge, its own share has the distribution
/// Beta(alpha, alpha).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CutMix {
    /// 1 for a uniform share; more for shares near a half.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.1, max = 10.0)))]
    pub alpha: f64,
}

/// A random part of the image: its area uniform between `minArea` and the whole, its ratio of width to height
/// log-uniform between 3/4 and 4/3.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RandomResizedCrop {
    /// Least area of the part, as a share of the image's.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.01, max = 1.0)))]
    pub min_area: f64,
}

/// How training images are varied, with the data set's defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    /// Pixels of padding on each side before a random crop.
    pub crop: u32,
    /// Whether images are flipped.
    pub flip: bool,
    /// The random part, where one is taken.
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Side of the square of zeros; 0 for none.
    pub cutout: u32,
    /// How images are mixed, where they are.
    pub cut_mix: Option<CutMix>,
}
