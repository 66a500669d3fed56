//! Entry points for the fuzz targets (`trainer/fuzz`): parsers without a public function, and parsers of files that are too
//! large for random bytes.

use std::{io::Write, path::Path};

use datjob_api::training::{Dataset, HttpSource};

use super::{
    DataError, DataSet, DownloadError, decode, download, load_standard, objects::checksums, standard_files,
};

/// The number of training and test images that [`load_small`] expects.
pub const IMAGE_COUNTS: (usize, usize) = (2, 1);

/// Reads a data set of standard files like [`super::load`], with [`IMAGE_COUNTS`] images.
///
/// # Panics
///
/// If the data set has no standard files.
pub fn load_small(dataset: Dataset, dir: &Path) -> Result<DataSet, DataError> {
    let (training, test) = IMAGE_COUNTS;
    load_standard(&standard_files::layout(dataset).with_image_counts(training, test), dir)
}

/// Decodes an image. Returns its width, height and pixels of three bytes each.
pub fn decode(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>), String> {
    let mut image = decode::Rgb::default();
    decode::Decoder::new().decode(bytes, &mut image)?;
    Ok((image.size.width, image.size.height, image.pixels))
}

/// Unpacks an archive like [`super::download()`].
///
/// # Panics
///
/// If the folder for temporary files is not writable.
pub fn unpack(dataset: Dataset, bytes: &[u8], dir: &Path) -> Result<(), DownloadError> {
    let mut archive = tempfile::tempfile().expect("a temporary file");
    archive.write_all(bytes).expect("a temporary file can be written");
    let source = HttpSource { url: "http://127.0.0.1/".to_owned(), sha256: String::new() };
    download::unpack(&archive, dataset, &source, dir, &()).map(drop)
}

/// Parses a file in the format of `sha256sum` into names and checksums.
pub fn parse_checksums(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let checksums = checksums::Checksums::parse(bytes)?;
    Ok(checksums
        .names()
        .map(|name| (name.to_owned(), checksums.get(name).unwrap_or_default().to_owned()))
        .collect())
}
