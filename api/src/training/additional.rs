use serde::{Deserialize, Serialize};

use super::{FileSource, Model};

/// Images beside those of the data set, for training alone: generated ones, or ones without labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Additional {
    /// Where they come from: an archive of NumPy (.npz) with the arrays `image` (uint8, [N, H, W, C] or [N, C, H, W], of
    /// the data set's size) and, where labels are given, `label` ([N], integers). `dat-trainer run --additional-images
    /// FILE` takes the file instead.
    pub source: FileSource,
    /// Where their labels come from; given in the archive where absent.
    #[serde(default, skip_serializing_if = "Labels::is_given")]
    pub labels: Labels,
    /// Their share of every batch. An epoch goes over the data set once, whatever the share.
    #[serde(default = "half")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.01, max = 0.95)))]
    pub per_batch: f64,
}

fn half() -> f64 {
    0.5
}

/// Where labels come from. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Labels {
    /// The archive has them: those of generated images, or pseudo labels.
    Given(Nothing),
    /// Pseudo labels, which a trained network gives at the start (Carmon et al., arXiv 1905.13736).
    Teacher(Box<Teacher>),
    /// There are none, and the divergence of `objective.trades` is all that is learned from these images.
    None(Nothing),
}

/// Nothing to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A network that labels images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Teacher {
    /// The network, without initialWeights.
    pub model: Model,
    /// Its weights: safetensors, or a state dict that torch.save wrote. `dat-trainer run --teacher-weights FILE` takes the
    /// file instead.
    pub weights: FileSource,
}

impl Default for Labels {
    fn default() -> Self {
        Self::Given(Nothing {})
    }
}

impl Labels {
    fn is_given(&self) -> bool {
        matches!(self, Self::Given(_))
    }

    /// The network that gives them, if one does.
    pub fn teacher(&self) -> Option<&Teacher> {
        match self {
            Self::Teacher(teacher) => Some(teacher),
            Self::Given(_) | Self::None(_) => None,
        }
    }
}
