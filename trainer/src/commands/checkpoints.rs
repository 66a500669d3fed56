//! `dat-trainer checkpoints`: lists the checkpoints and results on a checkpoint volume, and verifies their files.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    checkpoint::{
        inventory::{self, Inventory},
        listing::JobListing,
    },
    commands::CheckpointsArgs,
};
use datjob_data::files::FileError;

mod table;

/// Why checkpoints cannot be listed.
#[derive(Debug, thiserror::Error)]
enum CheckpointsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "directory {} does not exist; pass the checkpoint volume or the directory of one job on it",
        .0.display()
    )]
    NotFound(PathBuf),
    #[error("{} is a file; pass the checkpoint volume or the directory of one job on it", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "no checkpoints or results in {}; pass the checkpoint volume, which has a directory for each job, or the directory \
         of one job",
        .0.display()
    )]
    NoJob(PathBuf),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Everything that was found, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    /// Whether nothing is damaged and everything can be read.
    is_whole: bool,
    jobs: Vec<JobListing>,
    /// Why directories of jobs cannot be read, a sentence each.
    errors: Vec<String>,
}

/// Lists checkpoints. Fails if something is damaged or cannot be read.
pub fn main(options: &CheckpointsArgs) -> ExitCode {
    match run(options, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dat-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the list. Returns whether nothing is damaged and everything can be read.
fn run(options: &CheckpointsArgs, output: &mut impl Write) -> Result<bool, CheckpointsError> {
    let directories = job_directories(&options.directory)?;
    let is_whole =
        if options.json { write_json(&directories, output)? } else { write_text(&directories, output)? };
    output.flush()?;
    Ok(is_whole)
}

/// The directories of jobs; at least one.
fn job_directories(path: &Path) -> Result<Vec<PathBuf>, CheckpointsError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => return Err(CheckpointsError::NotADirectory(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(CheckpointsError::NotFound(path.to_owned()));
        }
        Err(error) => return Err(FileError::new("open", path, error).into()),
        Ok(_) => {}
    }
    let directories = inventory::job_directories(path)?;
    if directories.is_empty() { Err(CheckpointsError::NoJob(path.to_owned())) } else { Ok(directories) }
}

fn read(directory: &Path) -> Result<JobListing, FileError> {
    Ok(JobListing::from(&Inventory::read(directory)?))
}

/// Writes each job once it is read: hashing takes long on a large volume.
fn write_text(directories: &[PathBuf], output: &mut impl Write) -> io::Result<bool> {
    let mut is_whole = true;
    for (number, directory) in directories.iter().enumerate() {
        if number > 0 {
            writeln!(output)?;
        }
        let lines = match read(directory) {
            Ok(job) => {
                is_whole &= job.is_whole();
                table::lines(&job)
            }
            Err(error) => {
                is_whole = false;
                vec![table::problem(&error.to_string())]
            }
        };
        lines.iter().try_for_each(|line| writeln!(output, "{line}"))?;
    }
    Ok(is_whole)
}

fn write_json(directories: &[PathBuf], output: &mut impl Write) -> io::Result<bool> {
    let mut listing = Listing { is_whole: true, jobs: Vec::new(), errors: Vec::new() };
    for directory in directories {
        match read(directory) {
            Ok(job) => listing.jobs.push(job),
            Err(error) => listing.errors.push(error.to_string()),
        }
    }
    listing.is_whole = listing.errors.is_empty() && listing.jobs.iter().all(JobListing::is_whole);
    serde_json::to_writer_pretty(&mut *output, &listing)?;
    writeln!(output)?;
    Ok(listing.is_whole)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::checkpoint::{Directory, Position, Steps};

    /// Saves a checkpoint in a new directory and returns the file of its tensors.
    fn save(path: &Path) -> PathBuf {
        fs::create_dir(path).unwrap();
        let directory = Directory::new(path, "hash".into(), "data".into(), None);
        let tensors = vec![("model.weight".into(), Tensor::ones([3], (Kind::Float, Device::Cpu)))];
        let at = Steps { epoch: 1, step: 0 };
        let saved = directory.save_tensors(at, &tensors).unwrap();
        let position = Position {
            at,
            step: 10,
            optimizer_begin: 0,
            step_scale: 1.0,
            validation_seed: 0,
            validation_pending: false,
            partial_epoch: None,
        };
        directory.save_manifest(&position, &saved, None, None).unwrap();
        path.join(saved.file)
    }

    fn list(directory: &Path, json: bool) -> Result<(bool, String), String> {
        let options = CheckpointsArgs { directory: directory.to_owned(), json };
        let mut output = Vec::new();
        let is_whole = run(&options, &mut output).map_err(|error| error.to_string())?;
        Ok((is_whole, String::from_utf8(output).unwrap()))
    }

    #[test]
    fn lists_all_jobs_of_a_volume_and_fails_if_one_is_damaged() {
        let volume = tempfile::tempdir().unwrap();
        let first = save(&volume.path().join("a"));
        save(&volume.path().join("b"));
        let (is_whole, text) = list(volume.path(), false).unwrap();
        assert!(is_whole, "{text}");
        assert!(text.starts_with("job a\n") && text.contains("\n\njob b\n"), "{text}");

        fs::write(&first, "cut off").unwrap();
        let (is_whole, text) = list(volume.path(), false).unwrap();
        assert!(!is_whole, "{text}");
        let problem = format!("checkpoint file {} is corrupt: expected SHA-256 ", first.display());
        assert!(text.contains(&problem), "{text}");
        let (is_whole, text) = list(volume.path(), true).unwrap();
        let listing: Value = serde_json::from_str(&text).unwrap();
        assert!(!is_whole && listing["isWhole"] == false, "{listing}");
        assert_eq!(listing["errors"].as_array().map(Vec::len), Some(0));
        let states = [0, 1].map(|job: usize| &listing["jobs"][job]["checkpoints"][0]["state"]);
        assert_eq!(states, ["corrupt", "whole"]);
        assert!(list(&volume.path().join("b"), true).unwrap().0, "the other job is whole");
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_a_problem() {
        let gone = [PathBuf::from("/nowhere/job")];
        let mut text = Vec::new();
        assert!(!write_text(&gone, &mut text).unwrap());
        assert!(text.starts_with(b"problem          cannot list /nowhere/job: "));
        let mut text = Vec::new();
        assert!(!write_json(&gone, &mut text).unwrap());
        let listing: Value = serde_json::from_slice(&text).unwrap();
        let error = listing["errors"][0].as_str().unwrap();
        assert!(error.starts_with("cannot list /nowhere/job: "), "{error}");
    }

    #[test]
    fn a_directory_without_jobs_is_refused() {
        let volume = tempfile::tempdir().unwrap();
        let fails = |path: &Path| list(path, false).unwrap_err();
        let error = fails(volume.path());
        assert!(error.starts_with("no checkpoints or results in ") && error.contains("; pass "), "{error}");
        let file = volume.path().join("file");
        assert!(fails(&file).contains("file does not exist; pass the checkpoint volume or "));
        fs::write(&file, "").unwrap();
        assert!(fails(&file).contains("file is a file; pass "));
    }
}
