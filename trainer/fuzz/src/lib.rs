//! Shared code of the fuzz targets (`targets/`): writes random bytes to files for the parsers.
//!
//! A target fails if the parser panics, accesses invalid memory, uses more than two gigabytes or a minute, or returns an
//! inconsistent result. `make fuzz` runs each target for a minute; `seeds/` has the seed corpora.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use datjob_data::weights::RawTensor;
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A temporary temporary_folder with these files. It is removed when the result is dropped.
///
/// # Panics
///
/// If the directory for temporary files is not writable.
pub fn temporary_folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, contents) in files {
        fs::write(dir.path().join(name), contents).expect("a temporary file");
    }
    dir
}

/// Calls `read` with a file of these bytes.
pub fn with_file<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let dir = temporary_folder(&[("file", bytes)]);
    read(&dir.path().join("file"))
}

/// A zip archive of these files with valid checksums, so that their content reaches the parser.
///
/// # Panics
///
/// If memory is exhausted.
pub fn zip_archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, contents) in files {
        writer.start_file(*name, stored).expect("an archive in memory");
        writer.write_all(contents).expect("an archive in memory");
    }
    writer.finish().expect("an archive in memory").into_inner()
}

/// Asserts that a tensor has as many bytes as its shape requires.
///
/// # Panics
///
/// If it does not.
pub fn assert_tensor_size(tensor: &RawTensor) {
    let count =
        tensor.shape.iter().try_fold(1_usize, |count, &length| count.checked_mul(length.try_into().ok()?));
    assert_eq!(
        count.map(|count| count * tensor.dtype.size()),
        Some(tensor.bytes.len()),
        "{:?}",
        tensor.shape
    );
}
