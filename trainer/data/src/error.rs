use std::{io, path::PathBuf};

use thiserror::Error;

use crate::files::is_gzipped;

/// Why a data set cannot be read; each sentence names the file.
#[derive(Debug, Error)]
pub enum DataError {
    /// A standard file is not there.
    #[error(
        "{}: the file is missing; {dataset} consists of {files}, in {} or in {folder} below it",
        dir.join(file).display(),
        dir.display()
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
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the decompression said.
        source: io::Error,
    },
    /// A file is shorter than its format says.
    #[error("{}: truncated: {expected} bytes were expected{}, {found} found", path.display(), after_unpacking(path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes, unpacked, that it should hold.
        expected: usize,
        /// Bytes, unpacked, that it holds.
        found: usize,
    },
    /// A file is longer than its format says.
    #[error("{}: more than the {expected} bytes that were expected{}", path.display(), after_unpacking(path))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes, unpacked, that it should hold.
        expected: usize,
    },
    /// An IDX file does not begin as one.
    #[error(
        "{}: begins with {found:#010x} and not with {expected:#010x}: no IDX file of {what}",
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
    #[error("{}: its header says {found:?}, {dataset} has {expected:?}", path.display())]
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
    #[error("{}: label {label} of image {image} (counted from 0): there are {classes} classes", path.display())]
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
    #[error("{}: {problem}; {dataset} is {layout}, there or in the only folder below it", dir.display())]
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
    #[error("images cannot be decoded: {0}")]
    Thread(io::Error),
    /// More images are to be held back than there are.
    #[error(
        "{validation} of {images} training images are to be held back: none would be left; lower \
         spec.training.data.validation.count"
    )]
    Split {
        /// Training images in all.
        images: usize,
        /// How many are to be held back.
        validation: usize,
    },
}

fn after_unpacking(path: &std::path::Path) -> &'static str {
    if is_gzipped(path) { " after unpacking" } else { "" }
}
