//! Durable file operations, and errors that name the file.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::storage::track;

/// Extension of a file while it is written. A crash can leave such a file.
pub const PARTIAL_EXTENSION: &str = "partial";

/// Size of the pieces in which files are read and written. A piece takes seconds even on a slow volume.
const PIECE_BYTES: usize = 16 << 20;

/// An operation on a file or directory failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {error}{}", path.display(), advice(error))]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    error: io::Error,
}

impl FileError {
    /// The failure of `action` ("read", "write", …) on `path`.
    pub fn new(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self { action, path: path.to_owned(), error }
    }

    /// The error of the system.
    pub(crate) fn into_source(self) -> io::Error {
        self.error
    }
}

/// The fix of an error, after a semicolon.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "; the trainer does not run as root: set spec.pod.fsGroup or spec.pod.runAsUser to an ID that can access \
             the volume"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; the volume is full",
        ErrorKind::ReadOnlyFilesystem => "; the volume is mounted read-only",
        _ => "",
    }
}

/// Creates a directory and its parents.
pub fn create_directory(path: &Path) -> Result<(), FileError> {
    const ACTION: &str = "create the directory";
    track(ACTION, path, || fs::create_dir_all(path)).map_err(|error| FileError::new(ACTION, path, error))
}

/// Replaces a file atomically: after a crash it has either the old or the new content.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let partial = path.with_added_extension(PARTIAL_EXTENSION);
    let failed = |error| FileError::new("write", path, error);
    let mut file = track("create", path, || File::create(&partial)).map_err(failed)?;
    let mut pieces = content.chunks(PIECE_BYTES);
    let written = pieces.try_for_each(|piece| track("write", path, || file.write_all(piece)));
    let synced = written.and_then(|()| track("write", path, || file.sync_all()));
    if let Err(error) = synced.and_then(|()| track("rename", path, || fs::rename(&partial, path))) {
        // On a full volume the partial file would take space from other files.
        let _ = fs::remove_file(&partial);
        return Err(failed(error));
    }
    sync_parent(path).map_err(failed)
}

/// Creates a file with its whole content, durable on return. Returns `false` if the file exists; it stays as it is. Of several
/// writers, one creates it.
pub fn create_exclusively(path: &Path, content: &[u8]) -> Result<bool, FileError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let failed = |error| FileError::new("create", path, error);
    // Process IDs alone are equal in all pods.
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let partial =
        path.with_added_extension(format!("{nanoseconds:x}-{process}-{number}.{PARTIAL_EXTENSION}"));
    let write = || {
        let mut file = File::create_new(&partial)?;
        file.write_all(content)?;
        file.sync_all()
    };
    let created = track("create", path, || write().and_then(|()| link(&partial, path)));
    // A renamed file is gone; another one would only take space.
    let _ = fs::remove_file(&partial);
    let created = created.map_err(failed)?;
    sync_parent(path).map_err(failed)?;
    Ok(created)
}

/// Gives a file the name `path`, unless that exists.
fn link(file: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(file, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // The file system has no hard links. A rename is atomic too, but the last of two simultaneous writers wins.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            if path.try_exists()? {
                return Ok(false);
            }
            fs::rename(file, path).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// Makes the names in the directory of a file durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let sync = || File::open(parent).and_then(|directory| directory.sync_all());
    track("write", path, sync)
}

/// The content of a file of at most `limit` bytes, or `None` if the file does not exist.
pub fn read_if_exists(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    let failed = |error| FileError::new("read", path, error);
    let file = match track("open", path, || File::open(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let (mut content, mut rest) = (Vec::new(), file.take(limit + 1));
    let mut read = || rest.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut content);
    while track("read", path, &mut read).map_err(failed)? > 0 {}
    if content.len() as u64 > limit {
        let problem = format!("too large: must be at most {limit} bytes");
        return Err(failed(io::Error::new(ErrorKind::FileTooLarge, problem)));
    }
    Ok(Some(content))
}

/// Removes a file, if it exists.
pub fn remove_if_exists(path: &Path) -> Result<(), FileError> {
    match track("remove", path, || fs::remove_file(path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
        _ => Ok(()),
    }
}

pub(crate) fn is_gzipped(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(read_if_exists(&path, 10).unwrap().unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_no_partial_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomically(&path, b"content").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_file_is_not_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verdict.json");
        assert!(create_exclusively(&path, b"first").unwrap());
        assert!(!create_exclusively(&path, b"second").unwrap());
        assert_eq!(read_if_exists(&path, 10).unwrap().unwrap(), b"first");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no partial file is left");
    }

    #[test]
    fn one_of_many_writers_creates_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verdict.json");
        let created: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8_u8)
                .map(|writer| {
                    scope.spawn({
                        let path = &path;
                        move || create_exclusively(path, &[writer; 8]).unwrap()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| usize::from(writer.join().unwrap())).sum()
        });
        assert_eq!((created, fs::read_dir(directory.path()).unwrap().count()), (1, 1));
        let content = read_if_exists(&path, 10).unwrap().unwrap();
        assert!(content.len() == 8 && content.iter().all(|byte| *byte == content[0]), "{content:?}");
    }

    #[test]
    fn errors_name_the_file() {
        let error = write_atomically(Path::new("/nowhere/file"), b"").unwrap_err().to_string();
        assert!(error.starts_with("cannot write /nowhere/file: "), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        fs::write(&path, [0; 20]).unwrap();
        assert!(read_if_exists(&path, 10).unwrap_err().to_string().contains("must be at most 10 bytes"));
        assert!(read_if_exists(&directory.path().join("none"), 10).unwrap().is_none());
    }
}
