//! For fuzz targets alone (`trainer/fuzz`): parsers that have no public function of their own, or whose files are too
//! large to be made of random bytes.

use std::{io::Write, path::Path};

use datjob_api::training::{Dataset, HttpSource};

use super::{
    DataError, DataSet, DownloadError, decode, download, load_standard, objects::sums, standard_files,
};

/// Images that a standard data set is made of here, for training and for testing.
pub const IMAGES: (usize, usize) = (2, 1);

/// Reads a data set of standard files as [`super::load`] does, of [`IMAGES`] images.
///
/// # Panics
///
/// Where the data set consists of no standard files.
pub fn load_small(dataset: Dataset, dir: &Path) -> Result<DataSet, DataError> {
    let mut layout = standard_files::layout(dataset).expect("a data set of standard files");
    (layout.contents.training_images, layout.contents.test_images) = IMAGES;
    load_standard(&layout, dir)
}

/// Decodes an image; gives its width, its height and its pixels, three bytes each.
pub fn decode(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>), String> {
    let mut image = decode::Rgb::default();
    decode::Decoder::new().decode(bytes, &mut image)?;
    Ok((image.width, image.height, image.pixels))
}

/// Takes a data set's files out of an archive as [`super::download()`] does.
///
/// # Panics
///
/// Where the folder for temporary files cannot be written to.
pub fn unpack(dataset: Dataset, bytes: &[u8], dir: &Path) -> Result<(), DownloadError> {
    let mut archive = tempfile::tempfile().expect("a temporary file");
    archive.write_all(bytes).expect("a temporary file can be written");
    let source = HttpSource { url: "http://127.0.0.1/".to_owned(), sha256: String::new() };
    download::unpack(archive, dataset, &source, dir)
}

/// Names and sums of a file in the format of `sha256sum`.
pub fn sums(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let sums = sums::Sums::parse(bytes)?;
    Ok(sums.names().map(|name| (name.to_owned(), sums.of(name).unwrap_or_default().to_owned())).collect())
}
