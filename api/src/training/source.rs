//! Where data sets and files come from.

use serde::{Deserialize, Serialize};

use super::Training;

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

/// Where one file comes from. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum FileSource {
    /// A file of a volume.
    Volume(VolumeFile),
    /// The file itself over HTTP or HTTPS, with its SHA-256; every pod downloads it.
    Http(HttpSource),
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeFile {
    /// The claim that holds it, in the job's namespace; mounted read-only.
    pub persistent_volume_claim: ClaimReference,
    /// Path of the file in the volume.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024)))]
    pub path: String,
}

/// What a training spec names a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedFile {
    /// Weights to begin with: `model.initialWeights`.
    InitialWeights,
    /// Images beside the data set: `data.additional`.
    AdditionalImages,
    /// Weights of the network that labels them: `data.additional.labels.teacher`.
    TeacherWeights,
}

impl NamedFile {
    /// The field that names it, below `spec.training`.
    pub fn field(self) -> &'static str {
        match self {
            Self::InitialWeights => "model.initialWeights.source",
            Self::AdditionalImages => "data.additional.source",
            Self::TeacherWeights => "data.additional.labels.teacher.weights",
        }
    }

    /// A name for its volume and directory, and of the option that gives it on a workstation.
    pub fn name(self) -> &'static str {
        match self {
            Self::InitialWeights => "initial-weights",
            Self::AdditionalImages => "additional-images",
            Self::TeacherWeights => "teacher-weights",
        }
    }
}

impl Training {
    /// The files that the spec names beside the data set's.
    pub fn files(&self) -> Vec<(NamedFile, &FileSource)> {
        let weights = self.model.initial_weights.iter();
        let mut files: Vec<_> = weights.map(|weights| (NamedFile::InitialWeights, &weights.source)).collect();
        if let Some(additional) = &self.data.additional {
            files.push((NamedFile::AdditionalImages, &additional.source));
            if let Some(teacher) = additional.labels.teacher() {
                files.push((NamedFile::TeacherWeights, &teacher.weights));
            }
        }
        files
    }
}
