//! Of an archive only regular files with the names of the data set's files are taken, and put where [`names`] says.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use datjob_api::training::{Dataset, HttpSource};
use flate2::read::MultiGzDecoder;
use tempfile::NamedTempFile;

use super::{DownloadError, shown, writing};
use crate::{files, names};

/// Takes the data set's files out of the archive.
pub(crate) fn unpack(
    archive: File,
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
) -> Result<(), DownloadError> {
    let damaged = |error| DownloadError::Archive { url: shown(source), source: error };
    let mut tar = tar::Archive::new(open(archive).map_err(damaged)?.take(names::archive_limit(dataset)));
    // The folder above each part of the data set: train, val, test; or the file itself.
    let mut above: HashMap<PathBuf, String> = HashMap::new();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let Some(path) = path.to_str() else { continue };
        let Some(file) = names::place(dataset, path) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if names::is_misplaced(dataset, &file) {
            return Err(DownloadError::NoImage { url: shown(source), file: file.display().to_string() });
        }
        let part: PathBuf = file.iter().take(1).collect();
        let folder = file.to_str().and_then(|file| path.strip_suffix(file)).unwrap_or_default();
        let first = above.entry(part.clone()).or_insert_with(|| folder.to_owned());
        if first != folder {
            let (part, first, second) = (part.display().to_string(), first.clone(), folder.to_owned());
            return Err(DownloadError::Twice { url: shown(source), part, first, second });
        }
        let (size, limit) = (entry.size(), names::file_limit(dataset));
        if size > limit {
            let (url, file) = (shown(source), file.display().to_string());
            return Err(DownloadError::FileTooLarge { url, file, size, limit });
        }
        let target = dir.join(&file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(writing(parent))?;
        }
        let mut out = NamedTempFile::new_in(dir).map_err(writing(dir))?;
        let mut block = vec![0; 1 << 16];
        loop {
            let count = entry.read(&mut block).map_err(damaged)?;
            if count == 0 {
                break;
            }
            out.write_all(&block[..count]).map_err(writing(&target))?;
        }
        out.persist(&target).map_err(|error| writing(&target)(error.error))?;
        if !dataset.is_encoded() {
            remove_other_form(&target);
        }
    }
    Ok(())
}

/// The archive's bytes, unpacked if it begins as gzip does.
fn open(mut file: File) -> io::Result<Box<dyn Read>> {
    file.rewind()?;
    let mut start = [0; 2];
    let gzipped = match file.read_exact(&mut start) {
        Ok(()) => start == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    let file = BufReader::with_capacity(1 << 16, file);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Removes an older file of the same name without `.gz`, or with it, which would be read in its stead.
fn remove_other_form(target: &Path) {
    let other = if files::is_gzipped(target) {
        target.with_extension("")
    } else {
        PathBuf::from(format!("{}.gz", target.display()))
    };
    // There is none, as a rule.
    let _ = fs::remove_file(other);
}
