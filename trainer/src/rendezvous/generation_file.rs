//! The generation on the checkpoint volume: it never falls, whichever pod hosts the rendezvous.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use datjob_data::{
    files::{self, FileError},
    storage,
};

/// Name in the job's checkpoint directory.
const NAME: &str = "generation";
/// Most bytes of the file.
const MAX_BYTES: u64 = 64;

/// Makes a generation durable before any pod receives it.
pub trait RecordGeneration: fmt::Debug + Send + Sync {
    /// Records a generation. Blocks for as long as the volume does.
    fn record(&self, generation: u32) -> Result<(), FileError>;
}

/// The file with the generation.
#[derive(Debug)]
pub struct GenerationFile {
    path: PathBuf,
}

/// The recorded generation is unknown.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("invalid generation {content:?} in {}: the checkpoint volume is corrupt", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
}

impl GenerationFile {
    /// The file in a job's checkpoint directory.
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join(NAME) }
    }

    /// The newest recorded generation, or 0. Waits until the volume can be read.
    pub fn read(&self) -> Result<u32, GenerationError> {
        let Some(bytes) = storage::read_if_exists(&self.path, MAX_BYTES)? else { return Ok(0) };
        let content = String::from_utf8_lossy(&bytes).trim().to_owned();
        content.parse().map_err(|_| GenerationError::Invalid { path: self.path.clone(), content })
    }
}

impl RecordGeneration for GenerationFile {
    fn record(&self, generation: u32) -> Result<(), FileError> {
        files::write_atomically(&self.path, generation.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generation_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = GenerationFile::new(directory.path());
        assert_eq!(file.read().unwrap(), 0);
        file.record(7).unwrap();
        file.record(12).unwrap();
        assert_eq!(GenerationFile::new(directory.path()).read().unwrap(), 12);
        std::fs::write(directory.path().join("generation"), "many").unwrap();
        assert!(file.read().unwrap_err().to_string().starts_with("invalid generation \"many\" in "));
    }
}
