//! A DatJob manifest on a workstation: the parts that matter there.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::Training;

/// The parts of a manifest that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its name.
    pub metadata: Metadata,
    /// What to do.
    pub spec: Spec,
}

/// What names a manifest.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// The name.
    pub name: String,
}

/// What to do.
#[derive(Debug, Deserialize)]
pub struct Spec {
    /// When a run gives up.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// What is trained and how.
    pub training: Training,
}

/// When a run gives up.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Worlds that may end.
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

/// A manifest that is none.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file.
    #[error("cannot read the manifest {path}: {error}")]
    Read {
        /// Its path.
        path: String,
        /// What happened.
        error: std::io::Error,
    },
    /// Its content.
    #[error("invalid DatJob manifest {path}: {problem}")]
    Manifest {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads the first DatJob of a file of YAML documents.
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ManifestError::Read { path: name.clone(), error })?;
    let problem = |problem: String| ManifestError::Manifest { path: name.clone(), problem };
    for document in serde_yaml::Deserializer::from_str(&text) {
        // Through JSON, which is what an API server makes of it too: YAML's own enums are tags.
        let json = serde_json::Value::deserialize(document).map_err(|error| problem(error.to_string()))?;
        if json.get("kind").is_some_and(|kind| kind == "DatJob") {
            return serde_json::from_value(json).map_err(|error| problem(error.to_string()));
        }
    }
    Err(problem("no YAML document has kind DatJob".to_owned()))
}
