//! Errors of reading data sets.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{Tally, files::is_gzipped};

/// A data set cannot be read. Each message names the file.
#[derive(Debug, Error)]
pub enum DataError {
    /// A standard file is missing.
    #[error(
        "{}: file not found; {dataset} needs the files {files} in {} or {}",
        dir.join(file).display(),
        dir.display(),
        dir.join(folder).display()
    )]
    Missing {
        /// The directory that was searched.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// The name of the data set in a manifest.
        dataset: &'static str,
        /// All files of the data set.
        files: String,
        /// The folder that the official archive creates.
        folder: &'static str,
    },
    /// A file cannot be read or decompressed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is shorter than its format requires.
    #[error("{}: truncated: expected {expected} bytes{}, found {found}", path.display(), after_decompression(path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Expected bytes after decompression.
        expected: usize,
        /// Bytes found after decompression.
        found: usize,
    },
    /// A file is longer than its format allows.
    #[error("{}: too large: expected at most {expected} bytes{}", path.display(), after_decompression(path))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Expected bytes after decompression.
        expected: usize,
    },
    /// An IDX file has the wrong magic number.
    #[error(
        "{}: invalid IDX file of {what}: expected magic number {expected:#010x}, found {found:#010x}",
        path.display()
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// The magic number of the file.
        found: u32,
        /// The expected magic number.
        expected: u32,
        /// The expected content: images or labels.
        what: &'static str,
    },
    /// The dimensions of an IDX file do not match the data set.
    #[error("{}: wrong dimensions: {dataset} has {expected:?}, the header has {found:?}", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The name of the data set in a manifest.
        dataset: &'static str,
        /// The dimensions of the file: number, height, width.
        found: Vec<u32>,
        /// The expected dimensions.
        expected: Vec<u32>,
    },
    /// A label is out of range.
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
        /// The label.
        label: u8,
        /// The number of classes.
        classes: i64,
    },
    /// A folder does not have the layout of the data set.
    #[error("{}: {problem}; {dataset} needs {layout}, in this folder or its only subfolder", dir.display())]
    Layout {
        /// The directory that was searched.
        dir: PathBuf,
        /// The problem.
        problem: String,
        /// The name of the data set in a manifest.
        dataset: &'static str,
        /// The expected layout.
        layout: &'static str,
    },
    /// A file or folder cannot be indexed.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The file or folder.
        path: PathBuf,
        /// The problem and its fix.
        problem: String,
    },
    /// Faults of several files.
    #[error("{}", describe(.0))]
    Faults(Tally),
    /// An image cannot be decoded.
    #[error("{image}: {problem}")]
    Image {
        /// The file, and the entry within a shard.
        image: String,
        /// The problem.
        problem: String,
    },
    /// A decoder thread cannot be started, or all have exited.
    #[error("cannot decode images: {0}")]
    Thread(io::Error),
    /// The validation set would contain all training images.
    #[error(
        "spec.training.data.validation.count: invalid value {validation}: must be less than the number of training \
         images ({images})"
    )]
    Split {
        /// The number of training images.
        images: usize,
        /// The requested number of validation images.
        validation: usize,
    },
}

fn describe(faults: &Tally) -> String {
    match faults.count() {
        1 => faults.to_string(),
        count => format!("{count} faults in the data set: {faults}"),
    }
}

fn after_decompression(path: &std::path::Path) -> &'static str {
    if is_gzipped(path) { " after decompression" } else { "" }
}
