//! Faults of storage that may pass: a full volume, a stale file handle, a server that does not answer.
//!
//! An operation that meets one is retried until it succeeds, because a person may enlarge the volume, or the server may
//! return. [`oldest_trouble`] is what this process waits for, for its report: such a fault, or an operation that does not return.

use std::{
    error::Error,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use datjob_api::report::StorageTrouble;
use rustix::io::Errno;

use crate::{
    files::{self, FileError},
    http::sources,
};

mod pending;
mod wait;

pub use pending::track;
pub use wait::Wait;

/// The errors of the system that may pass: of disks, of network file systems, and of file systems in user space.
const PASSING: [(Errno, &str); 15] = [
    (Errno::AGAIN, "EAGAIN"),
    (Errno::BUSY, "EBUSY"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::HOSTDOWN, "EHOSTDOWN"),
    (Errno::IO, "EIO"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NFILE, "ENFILE"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::REMOTEIO, "EREMOTEIO"),
    (Errno::ROFS, "EROFS"),
    (Errno::SHUTDOWN, "ESHUTDOWN"),
    (Errno::STALE, "ESTALE"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
];

/// Time until the first retry. It doubles with each one.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Maximum time between two retries.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The error of the system in an error. Some libraries keep only its kind.
fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error).or(match error.kind() {
        io::ErrorKind::StorageFull => Some(Errno::NOSPC),
        io::ErrorKind::QuotaExceeded => Some(Errno::DQUOT),
        io::ErrorKind::ReadOnlyFilesystem => Some(Errno::ROFS),
        io::ErrorKind::StaleNetworkFileHandle => Some(Errno::STALE),
        _ => None,
    })
}

/// The fault of storage that caused an error, if it may pass. The error names the file.
pub fn trouble(error: &(dyn Error + 'static)) -> Option<StorageTrouble> {
    let errno = sources(error).find_map(|cause| errno(cause.downcast_ref()?))?;
    let (_, name) = PASSING.iter().find(|(passing, _)| *passing == errno)?;
    let (message, code) = (error.to_string(), format!("(os error {})", errno.raw_os_error()));
    let message = if message.contains(&code) {
        message.replace(&code, &format!("({name})"))
    } else {
        format!("{message} ({name})")
    };
    Some(StorageTrouble { error: (*name).to_owned(), message, since: unix_seconds() })
}

/// What this process has waited for longest, if it waits for its storage.
pub fn oldest_trouble() -> Option<StorageTrouble> {
    wait::oldest().into_iter().chain(pending::oldest()).min_by_key(|trouble| trouble.since)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Repeats an operation while its error is a fault of storage that may pass. Meanwhile its thread sleeps.
pub fn retry<T, E: Error + 'static>(operation: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    retry_after(FIRST_DELAY, operation)
}

fn retry_after<T, E: Error + 'static>(
    mut delay: Duration,
    mut operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut wait: Option<Wait> = None;
    loop {
        let result = operation();
        let Some(trouble) = result.as_ref().err().and_then(|error| trouble(error)) else { return result };
        tracing::warn!("Storage fault: {}; retrying in {} s.", trouble.message, delay.as_secs_f32());
        match &wait {
            Some(wait) => wait.update(trouble),
            None => wait = Some(Wait::begin(trouble)),
        }
        thread::sleep(delay);
        delay = (delay * 2).min(MAX_DELAY);
    }
}

/// [`retry`] of an operation whose error does not name the file.
pub(crate) fn retry_on<T>(
    action: &'static str,
    path: &Path,
    mut operation: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    // An error that does not pass returns as it is: the caller names the file.
    match retry(|| track(action, path, &mut operation).map_err(|error| FileError::new(action, path, error))) {
        Ok(value) => Ok(value),
        Err(error) => Err(error.into_source()),
    }
}

/// Writes bytes to a file, with retries; `path` is its path in messages.
pub(crate) fn write_all(file: &mut std::fs::File, path: &Path, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry_on("write", path, || file.write(bytes)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// [`files::read_if_exists`] with retries.
pub fn read_if_exists(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    retry(|| files::read_if_exists(path, limit))
}

/// [`files::write_atomically`] with retries.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), FileError> {
    retry(|| files::write_atomically(path, content))
}

/// What a path leads to, with retries.
pub fn metadata(path: &Path) -> io::Result<std::fs::Metadata> {
    retry_on("open", path, || std::fs::metadata(path))
}

/// Whether a path leads to a directory. Waits for storage that does not answer.
pub fn is_directory(path: &Path) -> bool {
    metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// An entry of a directory.
#[derive(Debug)]
pub struct DirectoryEntry {
    /// The path: that of the directory, and the name.
    pub path: PathBuf,
    /// The type, without following links.
    pub file_type: std::fs::FileType,
}

/// The entries of a directory, in no particular order, with retries.
pub fn list(directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
    retry_on("list", directory, || {
        std::fs::read_dir(directory)?
            .map(|entry| {
                let entry = entry?;
                Ok(DirectoryEntry { path: entry.path(), file_type: entry.file_type()? })
            })
            .collect()
    })
}

/// A file to read, which retries every operation. After a fault it is opened anew, because a stale handle stays stale.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    handle: std::fs::File,
    position: u64,
}

impl File {
    /// Opens a file for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let handle = retry_on("open", path, || std::fs::File::open(path))?;
        Ok(Self { path: path.to_owned(), handle, position: 0 })
    }

    /// Length in bytes.
    pub fn length(&mut self) -> io::Result<u64> {
        self.retry("open", |file| Ok(file.metadata()?.len()))
    }

    /// Fills the buffer with the bytes at an offset. The position of [`Read`] does not change.
    pub fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.retry("read", |file| file.read_exact_at(buffer, offset))
    }

    fn retry<T>(
        &mut self,
        action: &'static str,
        mut operation: impl FnMut(&std::fs::File) -> io::Result<T>,
    ) -> io::Result<T> {
        let Self { path, handle, .. } = self;
        let mut is_first = true;
        retry_on(action, path, || {
            if !std::mem::take(&mut is_first) {
                *handle = std::fs::File::open(&*path)?;
            }
            operation(handle)
        })
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.position;
        let read = self.retry("read", |file| file.read_at(buffer, position))?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length()?.checked_add_signed(offset),
        };
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "seek to a negative position");
        self.position = position.ok_or_else(invalid)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale() -> io::Error {
        Errno::STALE.into()
    }

    /// The faults with this text in their message. Other tests of this process may wait too.
    fn waiting_for(text: &str) -> Vec<String> {
        wait::messages().into_iter().filter(|message| message.contains(text)).collect()
    }

    #[test]
    fn a_fault_that_may_pass_is_named() {
        let error = FileError::new("read", Path::new("train/c1/0011.jpg"), stale());
        let trouble = trouble(&error).unwrap();
        assert_eq!(trouble.error, "ESTALE");
        assert_eq!(trouble.message, "cannot read train/c1/0011.jpg: Stale file handle (ESTALE)");
        assert!(trouble.since > 1_700_000_000);
        // Hidden in the error of a library, as the readers of archives do.
        assert!(super::trouble(&io::Error::other(Errno::NOSPC)).is_none(), "not an error of the system");
        let kind = io::Error::new(io::ErrorKind::StorageFull, "cannot create /data/x");
        assert_eq!(super::trouble(&kind).unwrap().message, "cannot create /data/x (ENOSPC)");
        assert_eq!(super::trouble(&io::Error::other(stale())).unwrap().error, "ESTALE");
    }

    #[test]
    fn other_errors_do_not_pass() {
        for error in [Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::ISDIR, Errno::NAMETOOLONG] {
            assert_eq!(trouble(&io::Error::from(error)), None, "{error}");
        }
        assert_eq!(trouble(&io::Error::new(io::ErrorKind::UnexpectedEof, "short")), None);
    }

    #[test]
    fn an_operation_is_retried_until_its_storage_works() {
        let mut results = vec![Ok(7), Err(Errno::NOSPC), Err(Errno::IO)];
        let path = Path::new("/retried/checkpoint");
        let result = retry_after(Duration::from_millis(1), || {
            let seen = waiting_for("/retried/");
            assert!(results.len() == 3 || seen.len() == 1, "{seen:?}");
            let result = results.pop().unwrap();
            result.map_err(|error: Errno| FileError::new("write", path, error.into()))
        });
        assert_eq!(result.unwrap(), 7);
        assert_eq!(waiting_for("/retried/"), Vec::<String>::new());
    }

    #[test]
    fn an_error_that_does_not_pass_is_returned() {
        let mut calls = 0;
        let result = retry_after(Duration::from_millis(1), || -> Result<(), FileError> {
            calls += 1;
            let error = if calls < 3 { Errno::IO } else { Errno::NOENT };
            Err(FileError::new("read", Path::new("/removed/image"), error.into()))
        });
        assert!(result.unwrap_err().to_string().starts_with("cannot read /removed/image: No such file"));
        assert_eq!((calls, waiting_for("/removed/")), (3, Vec::new()));
    }

    #[test]
    fn a_file_is_read_from_any_position() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let mut file = File::open(&path).unwrap();
        assert_eq!(file.length().unwrap(), 10);
        file.seek(SeekFrom::End(-4)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "6789");
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, 2).unwrap();
        assert_eq!(&bytes, b"234");
        assert_eq!(file.stream_position().unwrap(), 10);
        assert!(file.seek(SeekFrom::Current(-11)).is_err());
        assert!(file.read_exact_at(&mut bytes, 8).is_err());
    }

    #[test]
    fn missing_files_are_no_faults() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"x").unwrap();
        let entries = list(directory.path()).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path, directory.path().join("file"));
        assert!(entries[0].file_type.is_file());
        assert!(is_directory(directory.path()) && !is_directory(&directory.path().join("file")));
        assert_eq!(metadata(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(list(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
