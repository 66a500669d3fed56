//! `data.additional`: additional images for training.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FileSource, Model};

/// Additional images for training only, for example generated or unlabelled images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Additional {
    /// NumPy archive (.npz) with the arrays `image` (uint8, [N, H, W, C] or [N, C, H, W], in the size of the data set)
    /// and, for `labels.given`, `label` (N integers). `dat-trainer run --additional-images FILE` overrides it.
    pub source: FileSource,
    /// Source of the labels. Defaults to `given: {}`.
    #[serde(default, skip_serializing_if = "Labels::is_given")]
    pub labels: Labels,
    /// Fraction of additional images in every batch, from 0.01 to 0.95. Defaults to 0.5. An epoch remains one pass over
    /// the data set.
    #[serde(default = "half")]
    #[schemars(range(min = 0.01, max = 0.95))]
    pub per_batch: f64,
}

fn half() -> f64 {
    0.5
}

/// Source of labels. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Labels {
    /// Labels from the archive: those of generated images, or pseudo labels.
    Given(Nothing),
    /// Pseudo labels from a trained network, computed when the job starts (Carmon et al., arXiv 1905.13736).
    Teacher(Box<Teacher>),
    /// No labels: only the divergence of `objective.trades` uses these images. Requires `objective.trades`.
    None(Nothing),
}

/// Empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Network that labels images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Teacher {
    /// Network of the teacher.
    #[schemars(transform = remove_initial_weights)]
    pub model: Model,
    /// Weights of the teacher: safetensors, or a state dict from torch.save. `dat-trainer run --teacher-weights FILE`
    /// overrides it.
    pub weights: FileSource,
}

/// The weights of a teacher are [`Teacher::weights`].
fn remove_initial_weights(model: &mut Schema) {
    if let Some(properties) = model.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove("initialWeights");
    }
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

    /// The network that labels the images, if any.
    pub fn teacher(&self) -> Option<&Teacher> {
        match self {
            Self::Teacher(teacher) => Some(teacher),
            Self::Given(_) | Self::None(_) => None,
        }
    }
}
