//! Where the files of a folder were fetched from. Two sources in one folder would mix, or the one be taken for the other:
//! data sets share names and sizes of files.

use std::{fs, io, path::Path};

/// The file that says it.
const FILE: &str = ".source";

/// Whether files of this source may be put into a folder: it has none of another one.
pub(super) fn is_free_for(dir: &Path, source: &str) -> io::Result<bool> {
    match fs::read_to_string(dir.join(FILE)) {
        Ok(found) => Ok(found == source),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Makes a folder that of this source, before its first file comes.
pub(super) fn claim(dir: &Path, source: &str) -> io::Result<()> {
    crate::files::write_atomically(&dir.join(FILE), source.as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_source() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_free_for(dir.path(), "a").unwrap());
        claim(dir.path(), "a").unwrap();
        assert!(is_free_for(dir.path(), "a").unwrap());
        assert!(!is_free_for(dir.path(), "b").unwrap());
        assert!(claim(&dir.path().join("none"), "a").is_err());
    }
}
