use std::{io, path::PathBuf};

use thiserror::Error;

use crate::files::is_gzipped;

/// Why a data set cannot be read; each sentence names the file.
#[derive(Debug, Error)]
pub enum DataError {
    /// A standard file is not there.
    #[error(
        "{}: file not found; {dataset} needs the files {files} in {} or {}",
        dir.join(file).display(),
        dir.display(),
        dir.join(folder).display()
    )]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// The data set as a manifest writes it.
        dataset: &'static str,
        /// All its files.
        files: String,
        /// The folder that its own archive unpacks to.
        folder: &'static str,
    },
    /// A file cannot be read or unpacked.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the decompression said.
        source: io::Error,
    },
    /// A file is shorter than its format says.
    #[error("{}: truncated: expected {expected} bytes{}, found {found}", path.display(), after_unpacking(path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes, unpacked, that it should hold.
        expected: usize,
        /// Bytes, unpacked, that it holds.
        found: usize,
    },
    /// A file is longer than its format says.
    #[error("{}: too large: expected at most {expected} bytes{}", path.display(), after_unpacking(path))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes, unpacked, that it should hold.
        expected: usize,
    },
    /// An IDX file does not begin as one.
    #[error(
        "{}: invalid IDX file of {what}: expected magic number {expected:#010x}, found {found:#010x}",
        path.display()
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// The number it begins with.
        found: u32,
        /// The number it should begin with.
        expected: u32,
        /// What it should hold.
        what: &'static str,
    },
    /// An IDX file holds another number or shape.
    #[error("{}: wrong dimensions: {dataset} has {expected:?}, the header has {found:?}", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The data set as a manifest writes it.
        dataset: &'static str,
        /// Its sizes: number, height, width.
        found: Vec<u32>,
        /// The sizes it should have.
        expected: Vec<u32>,
    },
    /// A label stands for no class.
    #[error(
        "{}: invalid label {label} of image {image} (counted from 0): must be 0 to {}",
        path.display(),
        classes - 1
    )]
    Label {
        /// The file.
        path: PathBuf,
        /// Index of the image in the file.
        image: usize,
        /// Its label.
        label: u8,
        /// The number of classes.
        classes: i64,
    },
    /// A folder does not hold what the data set should be.
    #[error("{}: {problem}; {dataset} needs {layout}, in this folder or its only subfolder", dir.display())]
    Layout {
        /// Where it was looked for.
        dir: PathBuf,
        /// What is missing or wrong.
        problem: String,
        /// The data set as a manifest writes it.
        dataset: &'static str,
        /// How its files are laid out.
        layout: &'static str,
    },
    /// A file that the index of a data set is made of cannot be used.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// An image cannot be decoded.
    #[error("{image}: {problem}")]
    Image {
        /// The file, and the entry in it where it holds many.
        image: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The threads that decode images cannot work.
    #[error("cannot decode images: {0}")]
    Thread(io::Error),
    /// More images are to be held back than there are.
    #[error(
        "spec.training.data.validation.count: invalid value {validation}: must be less than the number of training \
         images ({images})"
    )]
    Split {
        /// Training images in all.
        images: usize,
        /// How many are to be held back.
        validation: usize,
    },
}

fn after_unpacking(path: &std::path::Path) -> &'static str {
    if is_gzipped(path) { " after decompression" } else { "" }
}
