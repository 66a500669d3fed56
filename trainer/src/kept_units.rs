//! Results of an evaluation's units on disk, so that an evaluation that was interrupted goes on where it was.
//!
//! Each process appends a line for each unit to its own file, and reads all files when it starts. A line that was cut off when
//! a process was killed is ignored. The name of the directory is a hash of everything that the results depend on.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use datjob_adversarial::evaluate::{Unit, UnitResults};
use datjob_data::{
    files::{self, FileError},
    storage,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The folder in the directory of a job.
pub const FOLDER: &str = "evaluation";
/// Extension of the files.
const EXTENSION: &str = "jsonl";
/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// How often the lines are made durable. Those that a crash of the machine costs are computed again.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// Versions of the trainer and of libtorch: others may have other results.
const VERSIONS: [&str; 2] = [env!("CARGO_PKG_VERSION"), crate::LIBTORCH_VERSION];

/// What the results of an evaluation depend on. Logits depend slightly on the device and on the number of threads.
#[derive(Debug, Serialize)]
pub struct UnitsKey<'a> {
    /// SHA-256 of the weights.
    pub weights: &'a str,
    /// SHA-256 of the training spec, which has the attacks and the seed.
    pub training: &'a str,
    /// Folder of the data set. The fingerprint of image-folder and webdataset has names and not pixels.
    pub folder: &'a Path,
    /// Fingerprint of the data set.
    pub data: &'a str,
    /// Number of evaluated images.
    pub images: usize,
    /// The device model.
    pub device: &'a str,
    /// Threads of the process.
    pub threads: usize,
}

impl UnitsKey<'_> {
    fn directory_name(&self) -> String {
        // Strings and numbers always have a JSON form.
        let json = serde_json::to_vec(&(self, VERSIONS)).unwrap_or_default();
        hex::encode(Sha256::digest(json)).chars().take(16).collect()
    }
}

/// A line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Number of the evaluation: the final attacks are one, the sweep is another.
    evaluation: u32,
    #[serde(flatten)]
    unit: Unit,
    /// Digest of the indices of the images.
    images: String,
    /// A digit for each image: 1 if it withstood the unit, or else 0.
    robust: String,
}

/// A line of a file about an image that was certified.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertifiedLine {
    /// Index of the image.
    certified: usize,
    /// Number of radii at which it is certified.
    radii: usize,
}

/// What is known.
#[derive(Debug, Default)]
struct Known {
    units: HashMap<ResultKey, Vec<bool>>,
    /// Radii by image.
    certified: HashMap<usize, usize>,
}

impl Known {
    fn count(&self) -> usize {
        self.units.len() + self.certified.len()
    }
}

/// Number of the evaluation, unit, and digest of the indices of its images.
type ResultKey = (u32, Unit, String);

fn digest(images: &[usize]) -> String {
    let mut hash = Sha256::new();
    for index in images {
        hash.update((*index as u64).to_le_bytes());
    }
    hex::encode(hash.finalize()).chars().take(16).collect()
}

/// The results of units, in memory and on disk.
#[derive(Debug)]
pub struct KeptUnits {
    directory: PathBuf,
    known: Known,
    /// Number of results that were not computed again.
    used: usize,
    /// Number of evaluations that have begun.
    evaluations: u32,
    /// `None` before the first result, and after an error.
    file: Option<File>,
    has_failed: bool,
    synced: Instant,
}

impl KeptUnits {
    /// The results below `folder` with this key. Files that cannot be read are ignored with a warning.
    pub fn open(folder: &Path, key: &UnitsKey<'_>) -> Self {
        let directory = folder.join(key.directory_name());
        let known = read(&directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "Cannot read the results of an interrupted evaluation; computing them again.");
            Known::default()
        });
        Self {
            directory,
            known,
            used: 0,
            evaluations: 0,
            file: None,
            has_failed: false,
            synced: Instant::now(),
        }
    }

    /// Number of results that earlier processes have kept.
    pub fn count(&self) -> usize {
        self.known.count()
    }

    /// Number of results of earlier processes that were used.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Removes the results: the evaluation is complete.
    pub fn remove(self) {
        let Self { directory, file, .. } = self;
        // A file that is open would stay on NFS under another name.
        drop(file);
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "Cannot remove the results of units.");
        }
        // It stays if it has the results of another evaluation.
        let _ = directory.parent().map(fs::remove_dir);
    }

    /// Begins the next evaluation of the test protocol, which always has the same order.
    pub fn begin_evaluation(&mut self) {
        self.evaluations += 1;
    }

    /// Appends a line, unless an earlier one could not be written.
    fn append(&mut self, line: &impl Serialize) {
        if self.has_failed {
            return;
        }
        if let Err(error) = self.try_to_append(line) {
            tracing::warn!(%error, "Cannot keep results of the evaluation; if it is interrupted, it starts again.");
            self.has_failed = true;
            self.file = None;
        }
    }

    fn try_to_append(&mut self, line: &impl Serialize) -> Result<(), FileError> {
        let failed = |error| FileError::new("write", &self.directory, error);
        if self.file.is_none() {
            files::create_directory(&self.directory)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            let path = self.directory.join(format!("{now}-{}.{EXTENSION}", process::id()));
            self.file = Some(File::options().append(true).create_new(true).open(path).map_err(failed)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        storage::track("write", &self.directory, || file.write_all(&text)).map_err(failed)?;
        if self.synced.elapsed() > SYNC_INTERVAL {
            storage::track("write", &self.directory, || file.sync_data()).map_err(failed)?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}

impl UnitResults for KeptUnits {
    fn find(&mut self, unit: Unit, images: &[usize]) -> Option<Vec<bool>> {
        let known = self.known.units.get(&(self.evaluations, unit, digest(images))).cloned();
        self.used += usize::from(known.is_some());
        known
    }

    fn keep(&mut self, unit: Unit, images: &[usize], robust: &[bool]) {
        let digit = |robust: &bool| if *robust { '1' } else { '0' };
        let line = Line {
            evaluation: self.evaluations,
            unit,
            images: digest(images),
            robust: robust.iter().map(digit).collect(),
        };
        self.append(&line);
    }

    fn find_certified(&mut self, image: usize) -> Option<usize> {
        let known = self.known.certified.get(&image).copied();
        self.used += usize::from(known.is_some());
        known
    }

    fn keep_certified(&mut self, image: usize, radii: usize) {
        self.append(&CertifiedLine { certified: image, radii });
    }
}

/// Number of results below a folder, of all evaluations that are not complete; `None` if the folder does not exist.
pub fn count_kept(folder: &Path) -> Result<Option<usize>, FileError> {
    let failed = |error| FileError::new("list", folder, error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut count = 0;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            count += read(&entry.path())?.count();
        }
    }
    Ok(Some(count))
}

fn read(directory: &Path) -> Result<Known, FileError> {
    let failed = |error| FileError::new("list", directory, error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Known::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut known = Known::default();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let text = files::read_if_exists(&path, MAX_BYTES)?.unwrap_or_default();
        for line in text.split(|byte| *byte == b'\n') {
            known.units.extend(parse(line));
            known.certified.extend(parse_certified(line));
        }
    }
    Ok(known)
}

/// Parses a line; `None` for one that was cut off.
fn parse(line: &[u8]) -> Option<(ResultKey, Vec<bool>)> {
    let Line { evaluation, unit, images, robust } = serde_json::from_slice(line).ok()?;
    let flag = |digit: u8| match digit {
        b'0' => Some(false),
        b'1' => Some(true),
        _ => None,
    };
    Some(((evaluation, unit, images), robust.bytes().map(flag).collect::<Option<_>>()?))
}

/// Parses a line about an image that was certified; `None` for another one.
fn parse_certified(line: &[u8]) -> Option<(usize, usize)> {
    let CertifiedLine { certified, radii } = serde_json::from_slice(line).ok()?;
    Some((certified, radii))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(weights: &str) -> UnitsKey<'_> {
        UnitsKey {
            weights,
            training: "t",
            folder: Path::new("/data"),
            data: "d",
            images: 3,
            device: "CPU",
            threads: 2,
        }
    }

    fn unit(run: u32) -> Unit {
        Unit { attack: 0, stage: 1, run, batch: 7 }
    }

    #[test]
    fn results_are_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut first = KeptUnits::open(&state, &key("a"));
        assert_eq!(first.find(unit(0), &[5, 6, 8]), None);
        first.keep(unit(0), &[5, 6, 8], &[true, false, true]);
        first.keep(unit(1), &[], &[]);
        first.keep_certified(7, 0);
        first.keep_certified(8, 12);
        first.begin_evaluation();
        first.keep(unit(0), &[5], &[false]);
        let mut second = KeptUnits::open(&state, &key("a"));
        assert_eq!(second.find(unit(0), &[5, 6, 8]), Some(vec![true, false, true]));
        assert_eq!(second.find(unit(0), &[5, 6, 9]), None, "other images");
        assert_eq!((second.find(unit(1), &[]), second.find(unit(2), &[])), (Some(vec![]), None));
        second.begin_evaluation();
        assert_eq!(second.find(unit(0), &[5]), Some(vec![false]));
        assert_eq!([7, 8, 9].map(|image| second.find_certified(image)), [Some(0), Some(12), None]);
        assert_eq!((second.count(), second.used()), (5, 5));
        assert_eq!(count_kept(&state).unwrap(), Some(5));
        // Other weights have other results, which stay.
        let mut other = KeptUnits::open(&state, &key("b"));
        assert_eq!(other.find(unit(0), &[5, 6, 8]), None);
        other.keep(unit(0), &[5], &[true]);
        second.remove();
        assert_eq!(KeptUnits::open(&state, &key("a")).count(), 0);
        assert_eq!(KeptUnits::open(&state, &key("b")).count(), 1);
        other.remove();
        assert!(!state.exists());
        assert_eq!(count_kept(&state).unwrap(), None);
        KeptUnits::open(&state, &key("a")).remove();
    }

    #[test]
    fn lines_that_were_cut_off_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let mut units = KeptUnits::open(folder.path(), &key("a"));
        units.keep(unit(0), &[1], &[true]);
        units.keep(unit(1), &[1, 2], &[true, false]);
        let file = fs::read_dir(&units.directory).unwrap().next().unwrap().unwrap().path();
        let text = fs::read(&file).unwrap();
        for length in 0..text.len() {
            fs::write(&file, &text[..length]).unwrap();
            let known = KeptUnits::open(folder.path(), &key("a")).known.units;
            assert!(known.values().all(|result| [1, 2].contains(&result.len())), "{known:?}");
        }
        fs::write(&file, [&text[..], b"{\"evaluation\":0}\n\xff\n"].concat()).unwrap();
        assert_eq!(KeptUnits::open(folder.path(), &key("a")).count(), 2);
    }

    #[test]
    fn an_evaluation_continues_if_results_cannot_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(key("a").directory_name()), "in the way").unwrap();
        let mut units = KeptUnits::open(folder.path(), &key("a"));
        units.keep(unit(0), &[1], &[true]);
        assert!(units.has_failed);
        units.keep(unit(1), &[1], &[true]);
    }
}
