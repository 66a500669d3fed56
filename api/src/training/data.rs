//! `data`: data set, validation split and augmentation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Additional, Dataset, Source, rules::Rule};

/// Images for training, validation and test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// Data set. image-folder: JPEG files in `train/CLASS/` and `val/CLASS/` (or `test/CLASS/`). webdataset: JPEG files
    /// and their classes in `train-*.tar` and `val-*.tar` (or `test-*.tar`). The others: their standard files.
    pub dataset: Dataset,
    /// Side length in pixels of the square input images, from 8 to 1024. Defaults to 224. Supported only with
    /// image-folder and webdataset; the other data sets have a fixed size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 1024))]
    pub image_size: Option<u32>,
    /// Source of the data set's files. `dat-trainer run --data DIR` replaces a volume or an image by a local folder.
    pub source: Source,
    /// Validation split: training images that are held out to select the best weights.
    #[serde(default)]
    pub validation: Validation,
    /// Augmentation of the training images.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Additional images for training only. Unsupported with image-folder and webdataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional: Option<Additional>,
}

/// Validation split: training images that are drawn at random and never augmented. It selects the best weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Validation {
    /// Number of held-out training images, from 1 to 40000. Defaults to 1000.
    #[schemars(range(min = 1, max = 40_000))]
    pub count: u32,
    /// Seed of the draw, from 0 to 9007199254740991. Defaults to 0. It is independent of `seed`: trainings with other
    /// seeds, and fine-tuning, hold out the same images.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub seed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

/// Augmentation of the training images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&AUGMENTATION_RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Augmentation {
    /// Number of zero pixels to pad on each side before a random crop, from 0 to 16. Defaults to 4 for CIFAR, otherwise
    /// 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub crop: Option<u32>,
    /// Whether to flip images left to right with probability 1/2. Defaults to false for MNIST, otherwise true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<bool>,
    /// Random crop that is resized to the image size, as usual for ImageNet. Enabled by default for image-folder and
    /// webdataset unless `crop` is set. Cannot be combined with `crop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Side length in pixels, from 1 to 1024, of a square that is set to zero around a random pixel and clipped at the
    /// image border (DeVries and Taylor, arXiv 1708.04552). Disabled if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub cutout: Option<u32>,
    /// CutMix (Yun et al., arXiv 1905.04899): pastes a part of another training image into each image, and mixes the
    /// labels in proportion. Requires objective.crossEntropy or objective.trades, without smoothing. Disabled if
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_mix: Option<CutMix>,
}

/// CutMix: the area of the pasted part has the distribution Beta(alpha, alpha) before it is clipped at the image
/// border.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CutMix {
    /// Parameter of the distribution Beta(alpha, alpha) of the mixing ratio, from 0.1 to 10. Defaults to 1 (uniform);
    /// larger values give ratios closer to 1/2.
    #[schemars(range(min = 0.1, max = 10.0))]
    pub alpha: f64,
}

/// Random crop. Its area is uniform between `minArea` and 1; its aspect ratio is log-uniform between 3/4 and 4/3.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RandomResizedCrop {
    /// Minimum area of the crop as a fraction of the image, from 0.01 to 1. Defaults to 0.08.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub min_area: f64,
}

/// Augmentation of training images, with the data set's defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    /// Pixels of padding on each side before a random crop.
    pub crop: u32,
    /// Whether images are flipped at random.
    pub flip: bool,
    /// Random resized crop, if enabled.
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Side of the square of zeros in pixels; 0 disables it.
    pub cutout: u32,
    /// CutMix, if enabled.
    pub cut_mix: Option<CutMix>,
}

/// Rules of the data.
pub(super) const RULES: [Rule<Data>; 2] = [
    Rule {
        field: "imageSize",
        problem: "imageSize requires dataset image-folder or webdataset, because the images of other data sets have a fixed \
                  size; remove the field",
        cel: Some("!has(self.imageSize) || self.dataset in ['image-folder', 'webdataset']"),
        holds: |data| data.image_size.is_none() || data.dataset.is_encoded(),
    },
    Rule {
        field: "additional",
        problem: "additional is unsupported with dataset image-folder and webdataset; add the images to the folders or shards \
                  of the data set",
        cel: Some("!has(self.additional) || !(self.dataset in ['image-folder', 'webdataset'])"),
        holds: |data| data.additional.is_none() || !data.dataset.is_encoded(),
    },
];

/// Rules of the augmentation.
pub(super) const AUGMENTATION_RULES: [Rule<Augmentation>; 1] = [Rule {
    field: "crop",
    problem: "crop and randomResizedCrop are mutually exclusive; remove one of them",
    cel: Some("!has(self.crop) || !has(self.randomResizedCrop)"),
    holds: |augmentation| augmentation.crop.is_none() || augmentation.random_resized_crop.is_none(),
}];
