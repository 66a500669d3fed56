//! What the fuzz targets (`targets/`) share: random bytes become the files that a parser reads.
//!
//! A target fails when the parser panics, reads outside of memory, takes more than two gigabytes or a minute, or gives
//! something that contradicts itself. `make fuzz` runs each for a minute; `seeds/` has what each begins with.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use datjob_data::weights::RawTensor;
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A folder that holds these files; it goes with what is returned.
///
/// # Panics
///
/// Where the folder for temporary files cannot be written to.
pub fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, contents) in files {
        fs::write(dir.path().join(name), contents).expect("a temporary file");
    }
    dir
}

/// Calls `read` with a file that holds these bytes.
pub fn with_file<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let dir = folder(&[("file", bytes)]);
    read(&dir.path().join("file"))
}

/// A zip archive of these files, with the right checksums: what is in them reaches the parser behind the archive.
///
/// # Panics
///
/// Where there is too little memory.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, contents) in files {
        writer.start_file(*name, stored).expect("an archive in memory");
        writer.write_all(contents).expect("an archive in memory");
    }
    writer.finish().expect("an archive in memory").into_inner()
}

/// Fails where a tensor has other bytes than its shape says.
///
/// # Panics
///
/// There.
pub fn check_tensor(tensor: &RawTensor) {
    let count =
        tensor.shape.iter().try_fold(1_usize, |count, &length| count.checked_mul(length.try_into().ok()?));
    assert_eq!(
        count.map(|count| count * tensor.number_type.width()),
        Some(tensor.bytes.len()),
        "{:?}",
        tensor.shape
    );
}
