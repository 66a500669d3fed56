//! IDX, the format of MNIST and Fashion-MNIST: a big-endian header (magic number, sizes), then bytes.
//! Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".

use std::path::{Path, PathBuf};

use datjob_api::training::Dataset;

use super::{
    Counts, DataError, DataSet, Images,
    files::{Contents, check_labels, find, layout},
};

/// What a file holds, and the number that it begins with: bytes in three dimensions or in one.
const IMAGES: (&str, u32) = ("images", 0x0803);
const LABELS: (&str, u32) = ("labels", 0x0801);

pub(super) fn load(dataset: Dataset, dir: &Path, counts: Counts) -> Result<DataSet, DataError> {
    let layout = layout(dataset);
    let part = |files: &[&'static str], count: usize| {
        let [_, height, width] = dataset.image_shape();
        let sizes = [count as u32, height as u32, width as u32];
        let (_, pixels) = read(dataset, dir, files[0], IMAGES, &sizes)?;
        let (path, labels) = read(dataset, dir, files[1], LABELS, &sizes[..1])?;
        check_labels(&path, &labels, dataset.classes())?;
        Ok(Images::new(dataset.image_shape(), pixels, labels))
    };
    Ok(DataSet { train: part(layout.train, counts.train)?, test: part(layout.test, counts.test)? })
}

/// The bytes after the header, which must say `sizes`.
fn read(
    dataset: Dataset,
    dir: &Path,
    file: &'static str,
    (what, magic): (&'static str, u32),
    sizes: &[u32],
) -> Result<(PathBuf, Vec<u8>), DataError> {
    let path = find(dataset, dir, file)?;
    let header = 4 + 4 * sizes.len();
    let expected = header + sizes.iter().map(|&size| size as usize).product::<usize>();
    let contents = Contents::read(path.clone(), expected);
    // The header first: "holds 10000 images" says more than "is too short".
    if let Some(header) = contents.bytes().get(..header) {
        check_header(dataset, contents.path(), header, (what, magic), sizes)?;
    }
    let mut bytes = contents.exactly(expected)?;
    bytes.drain(..header);
    Ok((path, bytes))
}

fn check_header(
    dataset: Dataset,
    path: &Path,
    header: &[u8],
    (what, magic): (&'static str, u32),
    sizes: &[u32],
) -> Result<(), DataError> {
    let mut words = header.as_chunks().0.iter().map(|&bytes| u32::from_be_bytes(bytes));
    let found = words.next().unwrap_or_default();
    if found != magic {
        return Err(DataError::Magic { path: path.to_owned(), found, expected: magic, what });
    }
    let found: Vec<u32> = words.collect();
    if found != sizes {
        let (path, expected) = (path.to_owned(), sizes.to_vec());
        return Err(DataError::Dimensions { path, dataset: dataset.name(), found, expected });
    }
    Ok(())
}
