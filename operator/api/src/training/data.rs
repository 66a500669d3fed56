use serde::{Deserialize, Serialize};

use super::{Additional, Dataset};

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
    /// The objects below a prefix of a bucket of S3, or of a store that speaks its protocol.
    ObjectStore(ObjectStoreSource),
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
    /// Where it is: of a data set a tar or tar.gz of its files.
    #[cfg_attr(feature = "crd", schemars(length(max = 2048), regex(pattern = "^https?://")))]
    pub url: String,
    /// SHA-256 of what is there, in hexadecimal.
    #[cfg_attr(feature = "crd", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: String,
}

/// Objects of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectStoreSource {
    /// Bucket and prefix, as in s3://bucket/datasets/imagenet. The data set's files below it are fetched by every pod; if
    /// there is an object SHA256SUMS directly below it, the files that it lists are compared with it.
    #[cfg_attr(
        feature = "crd",
        schemars(length(max = 1024), regex(pattern = "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"))
    )]
    pub url: String,
    /// Address of a store other than AWS, as in https://minio.example.com:9000; the bucket follows in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 2048), regex(pattern = "^https?://")))]
    pub endpoint: Option<String>,
    /// Region of the bucket; us-east-1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    pub region: Option<String>,
    /// A secret in the job's namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; requests are not signed
    /// where absent. `dat-trainer run` takes the environment variables of these names instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253)))]
    pub secret_name: Option<String>,
}

impl ObjectStoreSource {
    /// The bucket, and the prefix without slashes at its ends; nothing where the URL is none of S3.
    pub fn bucket_and_prefix(&self) -> Option<(&str, &str)> {
        let rest = self.url.strip_prefix("s3://").filter(|_| self.url.len() <= 1024)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let named = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(inner)
            && outer(bucket.bytes().next())
            && outer(bucket.bytes().next_back());
        named.then(|| (bucket, prefix.trim_matches('/')))
    }
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
