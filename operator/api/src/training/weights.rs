use serde::{Deserialize, Serialize};

use super::ClaimReference;

/// Weights to begin with, in the place of random ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InitialWeights {
    /// Where they come from. `dat-trainer run --initial-weights FILE` takes the file instead.
    pub source: WeightsSource,
    /// Begins with a new last layer even where theirs has as many classes as the data set. One for another number of
    /// classes is replaced in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_head: bool,
}

/// Where a file of weights comes from: safetensors, or a state dict that PyTorch's torch.save wrote, whose pickle is read
/// and never run. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum WeightsSource {
    /// A file of a volume, for example `status.results.weights` of another job in the claim of its checkpoints.
    Volume(WeightsFile),
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightsFile {
    /// The claim that holds it, in the job's namespace; mounted read-only.
    pub persistent_volume_claim: ClaimReference,
    /// Path of the file in the volume.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024)))]
    pub path: String,
}
