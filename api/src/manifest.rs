//! Reads a DatJob manifest on a workstation, without the fields that only apply to a cluster.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::Training;

/// A DatJob manifest, without the fields that only apply to a cluster.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Metadata of the job.
    pub metadata: Metadata,
    /// Spec of the job.
    pub spec: Spec,
}

/// Metadata of a job.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// Name of the job.
    pub name: String,
}

/// Spec of a job.
#[derive(Debug, Deserialize)]
pub struct Spec {
    /// Limit on restarts.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Training spec.
    pub training: Training,
}

/// Limit on restarts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Maximum number of restarts.
    #[serde(default = "default_max_restarts")]
    pub max_restarts: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { max_restarts: default_max_restarts() }
    }
}

fn default_max_restarts() -> u32 {
    6
}

/// A failure to read a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {path}: {error}")]
    Read {
        /// Path of the file.
        path: String,
        /// The cause.
        error: std::io::Error,
    },
    /// The content is invalid.
    #[error("invalid DatJob manifest {path}: {problem}")]
    Manifest {
        /// Path of the file.
        path: String,
        /// What is invalid.
        problem: String,
    },
}

/// Reads the first DatJob of a file of YAML documents.
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ManifestError::Read { path: name.clone(), error })?;
    let problem = |problem: String| ManifestError::Manifest { path: name.clone(), problem };
    for document in serde_yaml::Deserializer::from_str(&text) {
        // Via JSON, as in an API server, because serde_yaml expects tags for enum variants.
        let json = serde_json::Value::deserialize(document).map_err(|error| problem(error.to_string()))?;
        if json.get("kind").is_some_and(|kind| kind == "DatJob") {
            return serde_json::from_value(json).map_err(|error| problem(error.to_string()));
        }
    }
    Err(problem("no YAML document has kind DatJob".to_owned()))
}
