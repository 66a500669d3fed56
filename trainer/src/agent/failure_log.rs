//! Keeps the end of a failed worker's log next to the checkpoints, for the newest failures.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use datjob_data::files::{self, FileError};
use tokio::{task, time};

/// The folder in the job's checkpoint directory.
const FOLDER: &str = "logs";
/// Maximum number of files.
const MAX_FILES: usize = 20;
/// How long a write may take: a volume that does not answer must not delay the next world.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// A failed worker.
#[derive(Clone, Debug)]
pub(super) struct FailedWorker {
    /// Checkpoint directory of the job.
    pub directory: PathBuf,
    /// Path of `directory` relative to the checkpoint volume.
    pub below_volume: PathBuf,
    pub attempt: u32,
    pub generation: u32,
    pub rank: u32,
}

/// The end of a log could not be kept. The job continues without it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FailureLogError {
    #[error("the log of rank {rank} is not kept: {error}")]
    File { rank: u32, error: FileError },
    #[error(
        "the log of rank {rank} is not kept: the checkpoint volume did not answer within {} s",
        WRITE_TIMEOUT.as_secs()
    )]
    Timeout { rank: u32 },
    #[error("the log of rank {rank} is not kept: {error}")]
    Panic { rank: u32, error: task::JoinError },
}

impl FailedWorker {
    /// Writes the end of the worker's log; returns its path relative to the checkpoint volume.
    pub(super) async fn keep(self, text: String) -> Result<String, FailureLogError> {
        let rank = self.rank;
        let written = time::timeout(WRITE_TIMEOUT, task::spawn_blocking(move || self.write(&text))).await;
        match written {
            Ok(Ok(written)) => written.map_err(|error| FailureLogError::File { rank, error }),
            Ok(Err(error)) => Err(FailureLogError::Panic { rank, error }),
            Err(_) => Err(FailureLogError::Timeout { rank }),
        }
    }

    fn write(&self, text: &str) -> Result<String, FileError> {
        let folder = self.directory.join(FOLDER);
        let name = self.file_name();
        files::create_directory(&folder)?;
        files::write_atomically(&folder.join(&name), text.as_bytes())?;
        // Files that remain take little space, and the next failure tries again.
        if let Err(error) = remove_old(&folder, &name) {
            tracing::warn!(%error, "Cannot remove the log of an older failure.");
        }
        Ok(self.below_volume.join(FOLDER).join(name).to_string_lossy().into_owned())
    }

    fn file_name(&self) -> String {
        format!("attempt-{}-generation-{:04}-rank-{:03}.log", self.attempt, self.generation, self.rank)
    }
}

/// A log in the folder.
#[derive(Debug, PartialEq)]
struct KeptLog {
    name: String,
    generation: u32,
    written: SystemTime,
}

fn remove_old(folder: &Path, own: &str) -> Result<(), FileError> {
    let failed = |error| FileError::new("list", folder, error);
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(generation) = generation_of(&name) else { continue };
        let written = entry.metadata().and_then(|file| file.modified()).unwrap_or(UNIX_EPOCH);
        logs.push(KeptLog { name, generation, written });
    }
    surplus(logs, own).iter().try_for_each(|name| files::remove_if_exists(&folder.join(name)))
}

/// The generation in the name of a log.
fn generation_of(name: &str) -> Option<u32> {
    let (_, rest) = name.strip_prefix("attempt-")?.strip_suffix(".log")?.split_once("-generation-")?;
    rest.split_once("-rank-")?.0.parse().ok()
}

/// The logs to remove: those of the oldest generations, and within a generation the last ones. The first rank that fails is
/// the cause, and the others lose their connections to it.
fn surplus(mut logs: Vec<KeptLog>, own: &str) -> Vec<String> {
    logs.retain(|log| log.name != own);
    logs.sort_by(|a, b| b.generation.cmp(&a.generation).then(a.written.cmp(&b.written)));
    logs.into_iter().skip(MAX_FILES - 1).map(|log| log.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(directory: &Path, generation: u32, rank: u32) -> FailedWorker {
        FailedWorker {
            directory: directory.to_owned(),
            below_volume: "uid".into(),
            attempt: 2,
            generation,
            rank,
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory.join(FOLDER)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_log_is_named_by_attempt_generation_and_rank() {
        let directory = tempfile::tempdir().unwrap();
        let path = worker(directory.path(), 7, 3).keep("a\nb\n".into()).await.unwrap();
        assert_eq!(path, "uid/logs/attempt-2-generation-0007-rank-003.log");
        let file = directory.path().join(path.strip_prefix("uid/").unwrap());
        assert_eq!(fs::read_to_string(file).unwrap(), "a\nb\n");
    }

    #[tokio::test]
    async fn the_logs_of_the_newest_generations_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join(FOLDER).join("notes.txt");
        for generation in 1..=25 {
            worker(directory.path(), generation, 0).keep("x\n".into()).await.unwrap();
            fs::write(&other, "not a log").unwrap();
        }
        let kept = names(directory.path());
        assert_eq!(kept.len(), 20 + 1);
        assert_eq!(kept[0], "attempt-2-generation-0006-rank-000.log");
        assert!(other.exists());
    }

    #[test]
    fn the_first_failures_of_a_generation_are_kept() {
        let log = |generation: u32, rank: u32| KeptLog {
            name: format!("{generation}/{rank}"),
            generation,
            written: UNIX_EPOCH + Duration::from_secs(u64::from(100 - rank)),
        };
        // The highest rank failed first. The last one to fail keeps its own log until the next failure.
        let logs = (0..30).map(|rank| log(2, rank)).chain([log(1, 90)]).collect();
        let removed = surplus(logs, "2/0");
        let expected: Vec<String> =
            (1..=10).rev().map(|rank| format!("2/{rank}")).chain(["1/90".into()]).collect();
        assert_eq!(removed, expected);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_names_the_rank_and_the_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FOLDER), "in the way").unwrap();
        let error = worker(directory.path(), 1, 5).keep("x\n".into()).await.unwrap_err().to_string();
        assert!(error.starts_with("the log of rank 5 is not kept: cannot create the directory "), "{error}");
    }
}
