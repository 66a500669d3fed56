use serde::{Deserialize, Serialize};

use super::Dataset;

/// The images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// The data set.
    pub dataset: Dataset,
    /// Where its standard files come from. `dat-trainer run --data DIR` takes the folder instead.
    pub source: Source,
    /// Training images that are held back.
    #[serde(default)]
    pub validation: Validation,
    /// How training images are varied.
    #[serde(default)]
    pub augmentation: Augmentation,
}

/// Where a data set's standard files come from. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Source {
    /// A directory of a volume.
    Volume(VolumeSource),
    /// An OCI image, run once in each pod as an init container, that puts the files into the directory named by the
    /// environment variable `DATJOB_DATA`.
    Image(ImageSource),
    /// A tar or tar.gz of the files over HTTP or HTTPS.
    Http(HttpSource),
}

/// A directory of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSource {
    /// The claim that holds it, in the job's namespace; mounted read-only by every pod.
    pub persistent_volume_claim: ClaimReference,
    /// Directory in the volume; its root where empty.
    #[serde(default)]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub path: String,
}

/// A PersistentVolumeClaim by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimReference {
    /// Name of the claim, in the job's namespace.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253)))]
    pub claim_name: String,
}

/// An OCI image that holds the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSource {
    /// The image's reference. Its own entrypoint is run, as the trainer's user and with a read-only root.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024)))]
    pub reference: String,
}

/// Something over HTTP(S).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSource {
    /// Where it is: of a data set a tar or tar.gz of its standard files.
    #[cfg_attr(feature = "crd", schemars(length(max = 2048), regex(pattern = "^https?://")))]
    pub url: String,
    /// SHA-256 of what is there, in hexadecimal.
    #[cfg_attr(feature = "crd", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: String,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Augmentation {
    /// Pad by so many pixels of zeros, then crop at random; where absent 4 for CIFAR and 0 for MNIST and Fashion-MNIST.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 16)))]
    pub crop: Option<u32>,
    /// Flip every other image left to right at random; where absent true but for MNIST, whose digits have no mirror
    /// image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<bool>,
}
