use serde::{Deserialize, Serialize};

use super::{ClaimReference, HttpSource, Training};

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
