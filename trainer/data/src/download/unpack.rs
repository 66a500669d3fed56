//! Unpacks the files of a data set from an archive. Other entries are skipped; [`dataset_files`] gives the target paths.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use datjob_api::training::{Dataset, HttpSource};
use flate2::read::MultiGzDecoder;
use tempfile::NamedTempFile;

use super::{DownloadError, redacted_url, write_error};
use crate::{dataset_files, files};

/// Unpacks the files of the data set into `dir`.
pub(crate) fn unpack(
    archive: File,
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
) -> Result<(), DownloadError> {
    let invalid_archive = |error| DownloadError::Archive { url: redacted_url(source), source: error };
    let mut tar = tar::Archive::new(
        open_archive(archive).map_err(invalid_archive)?.take(dataset_files::archive_limit(dataset)),
    );
    // The parent folder in the archive of each subset (train, val, test) or standard file.
    let mut parents: HashMap<PathBuf, String> = HashMap::new();
    for entry in tar.entries().map_err(invalid_archive)? {
        let mut entry = entry.map_err(invalid_archive)?;
        let path = entry.path().map_err(invalid_archive)?.into_owned();
        let Some(path) = path.to_str() else { continue };
        let Some(file) = dataset_files::target_path(dataset, path) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if dataset_files::is_unexpected_file(dataset, &file) {
            return Err(DownloadError::UnexpectedFile {
                url: redacted_url(source),
                file: file.display().to_string(),
            });
        }
        let part: PathBuf = file.iter().take(1).collect();
        let parent = file.to_str().and_then(|file| path.strip_suffix(file)).unwrap_or_default();
        let first = parents.entry(part.clone()).or_insert_with(|| parent.to_owned());
        if first != parent {
            let (part, first, second) = (part.display().to_string(), first.clone(), parent.to_owned());
            return Err(DownloadError::DuplicatePart { url: redacted_url(source), part, first, second });
        }
        let (size, limit) = (entry.size(), dataset_files::file_limit(dataset));
        if size > limit {
            let (url, file) = (redacted_url(source), file.display().to_string());
            return Err(DownloadError::FileTooLarge { url, file, size, limit });
        }
        let target = dir.join(&file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(write_error(parent))?;
        }
        let mut out = NamedTempFile::new_in(dir).map_err(write_error(dir))?;
        let mut block = vec![0; 1 << 16];
        loop {
            let count = entry.read(&mut block).map_err(invalid_archive)?;
            if count == 0 {
                break;
            }
            out.write_all(&block[..count]).map_err(write_error(&target))?;
        }
        out.persist(&target).map_err(|error| write_error(&target)(error.error))?;
        if !dataset.is_encoded() {
            remove_other_variant(&target);
        }
    }
    Ok(())
}

/// A reader of the archive; decompresses gzip, which is detected by its magic number.
fn open_archive(mut file: File) -> io::Result<Box<dyn Read>> {
    file.rewind()?;
    let mut magic = [0; 2];
    let gzipped = match file.read_exact(&mut magic) {
        Ok(()) => magic == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    let file = BufReader::with_capacity(1 << 16, file);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Removes an older gzipped or plain variant of the file, which could be read instead.
fn remove_other_variant(target: &Path) {
    let other = if files::is_gzipped(target) {
        target.with_extension("")
    } else {
        PathBuf::from(format!("{}.gz", target.display()))
    };
    // It usually does not exist.
    let _ = fs::remove_file(other);
}
