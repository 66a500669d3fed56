//! Records the source of the files in a folder. Files of two sources in one folder would be mixed or confused, since data sets
//! share names and sizes of files.

use std::{fs, io, path::Path};

/// The file that records the source.
const SOURCE_FILE: &str = ".source";

/// Whether a folder may receive files of this source: it has no files of another source.
pub(super) fn accepts_source(dir: &Path, source: &str) -> io::Result<bool> {
    match fs::read_to_string(dir.join(SOURCE_FILE)) {
        Ok(found) => Ok(found == source),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Records the source of a folder. Call it before the first file is written.
pub(super) fn record_source(dir: &Path, source: &str) -> io::Result<()> {
    crate::files::write_atomically(&dir.join(SOURCE_FILE), source.as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_accepts_only_one_source() {
        let dir = tempfile::tempdir().unwrap();
        assert!(accepts_source(dir.path(), "a").unwrap());
        record_source(dir.path(), "a").unwrap();
        assert!(accepts_source(dir.path(), "a").unwrap());
        assert!(!accepts_source(dir.path(), "b").unwrap());
        assert!(record_source(&dir.path().join("none"), "a").is_err());
    }
}
