//! Sources of data sets and files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Training, rules::Rule};
use crate::patterns;

/// Pattern of an S3 URL, which [`ObjectStoreSource::bucket_and_prefix`] also checks, and the sentence of its rule.
const S3_URL: [&str; 2] = [
    "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$",
    "expected s3://bucket/prefix without credentials; a bucket has 3 to 63 lower-case letters, digits, '.' and '-'",
];
/// Pattern of a SHA-256, and the sentence of its rule.
const SHA256: [&str; 2] =
    ["^[0-9a-f]{64}$", "expected 64 lower-case hexadecimal digits, as sha256sum prints them"];

/// Source of the data set's files. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Source {
    /// Directory on a volume.
    Volume(VolumeSource),
    /// OCI image that runs once per pod as an init container and copies the files to the directory in the environment
    /// variable `DATJOB_DATA`.
    Image(ImageSource),
    /// tar or tar.gz archive of the files over HTTP or HTTPS.
    Http(HttpSource),
    /// Objects below a prefix of a bucket in S3 or in an S3-compatible store.
    ObjectStore(ObjectStoreSource),
}

/// Directory on a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&VOLUME_RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSource {
    /// PersistentVolumeClaim in the job's namespace. Every pod mounts it read-only.
    pub persistent_volume_claim: ClaimReference,
    /// Directory on the volume, relative to its root and without `..`. Defaults to the root.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub path: String,
}

/// Reference to a PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimReference {
    /// Name of the PersistentVolumeClaim, in the job's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// OCI image with the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSource {
    /// Reference of the image. Its entrypoint runs as the trainer's user with a read-only root file system.
    #[schemars(length(min = 1, max = 1024))]
    pub reference: String,
}

/// File over HTTP or HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSource {
    /// URL of the file, without a user or a password. For a data set, the file is a tar or tar.gz archive.
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = patterns::matches(patterns::HTTP_URL)))]
    pub url: String,
    /// SHA-256 of the file, as 64 lower-case hexadecimal digits.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = patterns::matches(SHA256)))]
    pub sha256: String,
}

/// Objects in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectStoreSource {
    /// Bucket and prefix, for example s3://bucket/datasets/imagenet. Every pod downloads the data set's files below the
    /// prefix. If an object SHA256SUMS exists directly below the prefix, the files that it lists are verified.
    #[schemars(length(max = 1024), extend("x-kubernetes-validations" = patterns::matches(S3_URL)))]
    pub url: String,
    /// URL of a store other than AWS, for example https://minio.example.com:9000. Requests use path-style URLs.
    /// Defaults to AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = patterns::matches(patterns::HTTP_URL)))]
    pub endpoint: Option<String>,
    /// Region of the bucket. Defaults to us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Name of a Secret in the job's namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Requests are
    /// not signed if absent. `dat-trainer run` reads the environment variables of these names instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

impl ObjectStoreSource {
    /// The bucket, and the prefix without slashes at its ends; `None` if the URL is invalid.
    pub fn bucket_and_prefix(&self) -> Option<(&str, &str)> {
        let rest = self.url.strip_prefix("s3://").filter(|_| self.url.len() <= 1024)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let valid = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(inner)
            && outer(bucket.bytes().next())
            && outer(bucket.bytes().next_back());
        valid.then(|| (bucket, prefix.trim_matches('/')))
    }
}

/// Source of one file. Exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum FileSource {
    /// File on a volume.
    Volume(VolumeFile),
    /// File over HTTP or HTTPS. Every pod downloads it.
    Http(HttpSource),
}

/// File on a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = Rule::schema(&VOLUME_FILE_RULES)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeFile {
    /// PersistentVolumeClaim in the job's namespace. Every pod mounts it read-only.
    pub persistent_volume_claim: ClaimReference,
    /// Path of the file, relative to the root of the volume and without `..`.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

/// A file of the training spec, by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedFile {
    /// Initial weights: `model.initialWeights`.
    InitialWeights,
    /// Additional images: `data.additional`.
    AdditionalImages,
    /// Weights of the teacher: `data.additional.labels.teacher`.
    TeacherWeights,
}

impl NamedFile {
    /// Path of the field below `spec.training`.
    pub fn field(self) -> &'static str {
        match self {
            Self::InitialWeights => "model.initialWeights.source",
            Self::AdditionalImages => "data.additional.source",
            Self::TeacherWeights => "data.additional.labels.teacher.weights",
        }
    }

    /// Name of its volume and directory, and of the command-line option on a workstation.
    pub fn name(self) -> &'static str {
        match self {
            Self::InitialWeights => "initial-weights",
            Self::AdditionalImages => "additional-images",
            Self::TeacherWeights => "teacher-weights",
        }
    }
}

impl Training {
    /// The files of the spec, without the data set.
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

const PATH_PROBLEM: &str = "path must be relative to the root of the volume, without \"..\"";
const PATH_CEL: &str = "!self.path.startsWith('/') && !('/' + self.path + '/').contains('/../')";

/// Rules of a directory on a volume.
pub(super) const VOLUME_RULES: [Rule<VolumeSource>; 1] = [Rule {
    field: "path",
    problem: PATH_PROBLEM,
    cel: Some(PATH_CEL),
    holds: |source| is_relative(&source.path),
}];

/// Rules of a file on a volume.
pub(super) const VOLUME_FILE_RULES: [Rule<VolumeFile>; 1] = [Rule {
    field: "path",
    problem: PATH_PROBLEM,
    cel: Some(PATH_CEL),
    holds: |file| is_relative(&file.path),
}];

pub(super) fn is_relative(path: &str) -> bool {
    !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}
