//! Reads the directories of jobs on a checkpoint volume. Changes nothing, does not wait for storage that does not work, and
//! keeps no tensors in memory.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry, File, Metadata},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    BEST_FILE, CheckpointError, LAST_FILE, Manifest, Steps, names,
    results::{self, Ending},
    resume,
};
use crate::kept_units;
use datjob_data::{
    files::{self, FileError},
    weights::TENSORS_MAX_BYTES,
};

/// The folder of ext4 for files without a name. Only root can list it.
const LOST_AND_FOUND: &str = "lost+found";
/// Number of bytes that are hashed at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// The content of the directory of a job.
#[derive(Debug)]
pub struct Inventory {
    /// The directory.
    pub path: PathBuf,
    /// Its name: the UID of the job; on a workstation the name of the job.
    pub directory: String,
    /// Its files, sorted by name.
    pub files: Vec<FoundFile>,
    /// Its checkpoints, in ascending order.
    pub checkpoints: Vec<FoundCheckpoint>,
    /// The results; `None` before the end of the job.
    pub results: Result<Option<FoundResults>, CheckpointError>,
    /// Number of results of a final evaluation that is not complete; `None` without one.
    pub evaluation: Result<Option<usize>, FileError>,
}

/// A file in the directory of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Name of the file.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last write; absent if the file system does not have it.
    pub modified: Option<Timestamp>,
}

/// A manifest, and whether its files are as they were written.
#[derive(Debug)]
pub struct FoundCheckpoint {
    /// Name of the manifest.
    pub file: String,
    /// The position in that name.
    pub at: Steps,
    /// The manifest.
    pub manifest: Result<Manifest, CheckpointError>,
    /// Why the tensors cannot be used.
    pub tensors_error: Option<CheckpointError>,
    /// Why the best weights cannot be used.
    pub best_error: Option<CheckpointError>,
}

impl FoundCheckpoint {
    fn is_whole(&self) -> bool {
        self.manifest.is_ok() && self.tensors_error.is_none() && self.best_error.is_none()
    }
}

/// The results, and whether the files of weights are those of the results.
#[derive(Debug)]
pub struct FoundResults {
    /// The content of `results.json`.
    pub ending: Ending,
    /// Why `best.safetensors` cannot be used.
    pub best_error: Option<CheckpointError>,
    /// Why `last.safetensors` cannot be used.
    pub last_error: Option<CheckpointError>,
}

impl FoundResults {
    fn is_whole(&self) -> bool {
        self.best_error.is_none() && self.last_error.is_none()
    }
}

/// The directories of jobs: `path` itself or, if it is a checkpoint volume, those in it, sorted by name. A directory that
/// cannot be listed counts as one: [`Inventory::read`] then returns the error.
pub fn job_directories(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = list(path)?;
    if entries.iter().any(is_file_of_job) {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in entries {
        let directory = entry.path();
        if !directory.is_dir() || entry.file_name() == LOST_AND_FOUND {
            continue;
        }
        match list(&directory) {
            Ok(entries) if !entries.iter().any(is_file_of_job) => {}
            Ok(_) | Err(_) => found.push(directory),
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_file_of_job(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    name.to_str().is_some_and(|name| {
        let original = names::parse_set_aside(name).unwrap_or(name);
        names::is_of_checkpoint(original) || original == results::FILE
    })
}

fn list(directory: &Path) -> Result<Vec<DirEntry>, FileError> {
    fs::read_dir(directory)
        .and_then(Iterator::collect)
        .map_err(|error| FileError::new("list", directory, error))
}

impl Inventory {
    /// Reads the directory of a job. Hashes the tensors and weights that manifests and results name.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let mut files = files_in(path)?;
        let mut reader = Reader { directory: path, verified: BTreeSet::new() };
        let mut manifests: Vec<(Steps, &str)> = files
            .iter()
            .filter_map(|file| Some((names::parse_manifest(&file.name)?, file.name.as_str())))
            .collect();
        manifests.sort_unstable();
        let checkpoints =
            manifests.into_iter().filter_map(|(at, file)| reader.checkpoint(file, at)).collect();
        let has_results = files.iter().any(|file| file.name == results::FILE);
        let results = if has_results { reader.results() } else { Ok(None) };
        let evaluation = kept_units::count_kept(&path.join(kept_units::FOLDER));
        // A training that runs removes older files.
        files.retain(|file| path.join(&file.name).exists());
        Ok(Self {
            path: path.to_owned(),
            directory: directory_name(path),
            files,
            checkpoints,
            results,
            evaluation,
        })
    }
}

/// The last part of a path. That of `.` is the name of the directory.
fn directory_name(path: &Path) -> String {
    let own = path.file_name().map(ToOwned::to_owned);
    let name = own.or_else(|| Some(fs::canonicalize(path).ok()?.file_name()?.to_owned()));
    name.unwrap_or_else(|| path.into()).to_string_lossy().into_owned()
}

/// The files in a directory, sorted by name. Follows links, as a training does.
fn files_in(directory: &Path) -> Result<Vec<FoundFile>, FileError> {
    let mut found = Vec::new();
    for entry in list(directory)? {
        let path = entry.path();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // A training that runs has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(FileError::new("open", &path, error)),
        };
        // Names that are not Unicode belong to no checkpoint.
        if let Ok(name) = entry.file_name().into_string()
            && metadata.is_file()
        {
            found.push(FoundFile { name, bytes: metadata.len(), modified: modified(&metadata) });
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Time of the last write, in whole seconds.
fn modified(metadata: &Metadata) -> Option<Timestamp> {
    let time = Timestamp::try_from(metadata.modified().ok()?).ok()?;
    Timestamp::from_second(time.as_second()).ok()
}

/// Reads checkpoints and results.
struct Reader<'a> {
    directory: &'a Path,
    /// Files with the SHA-256 that they were found to have: several manifests name the same best weights.
    verified: BTreeSet<(String, String)>,
}

impl Reader<'_> {
    /// Reads a checkpoint; `None` if it was removed meanwhile. Reads it once more if it seems damaged: a training may have
    /// replaced its files, and a client of a network file system may have kept old content.
    fn checkpoint(&mut self, file: &str, at: Steps) -> Option<FoundCheckpoint> {
        let found = self.read_checkpoint(file, at)?;
        if found.is_whole() { Some(found) } else { self.read_checkpoint(file, at) }
    }

    fn read_checkpoint(&mut self, file: &str, at: Steps) -> Option<FoundCheckpoint> {
        let manifest = self.manifest(file).transpose()?;
        let (mut tensors_error, mut best_error) = (None, None);
        if let Ok(manifest) = &manifest {
            tensors_error = self.verify(&resume::tensors_of(manifest), &manifest.sha256).err();
            if let Some(best) = &manifest.best {
                best_error = self.verify(&best.file, &best.sha256).err();
            }
        }
        Some(FoundCheckpoint { file: file.to_owned(), at, manifest, tensors_error, best_error })
    }

    fn manifest(&self, file: &str) -> Result<Option<Manifest>, CheckpointError> {
        let path = self.directory.join(file);
        let Some(content) = files::read_if_exists(&path, resume::MANIFEST_MAX_BYTES)? else {
            return Ok(None);
        };
        Ok(Some(resume::parse_manifest(&path, &content)?))
    }

    /// Reads the results, once more if their weights seem damaged.
    fn results(&mut self) -> Result<Option<FoundResults>, CheckpointError> {
        let found = self.read_results();
        let is_whole = found.as_ref().is_ok_and(|found| found.as_ref().is_none_or(FoundResults::is_whole));
        if is_whole { found } else { self.read_results() }
    }

    fn read_results(&mut self) -> Result<Option<FoundResults>, CheckpointError> {
        let Some(ending) = results::ending(self.directory)? else { return Ok(None) };
        let best_error = self.verify(BEST_FILE, &ending.results.sha256).err();
        let last_error = ending.last_sha256().and_then(|sha256| self.verify(LAST_FILE, sha256).err());
        Ok(Some(FoundResults { ending, best_error, last_error }))
    }

    /// Compares the SHA-256 of a file with the expected one.
    fn verify(&mut self, file: &str, expected: &str) -> Result<(), CheckpointError> {
        let key = (file.to_owned(), expected.to_owned());
        if self.verified.contains(&key) {
            return Ok(());
        }
        let path = self.directory.join(file);
        match sha256(&path) {
            Ok(found) if found == expected => {
                self.verified.insert(key);
                Ok(())
            }
            Ok(found) => Err(CheckpointError::Damaged { path, expected: key.1, found }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(CheckpointError::Missing { path }),
            Err(error) => Err(FileError::new("read", &path, error).into()),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() > TENSORS_MAX_BYTES {
        let problem = format!("too large: must be at most {TENSORS_MAX_BYTES} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, problem));
    }
    let mut file = File::open(path)?.take(metadata.len());
    let (mut hash, mut block) = (Sha256::new(), vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hex::encode(hash.finalize())),
            Ok(count) => hash.update(&block[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
