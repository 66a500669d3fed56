//! How the files of each data set are laid out. The standard files of MNIST and CIFAR: their names, finding them, and
//! reading them with a bound on every size.

use std::{
    io::{self, ErrorKind, Read},
    iter,
    path::{Path, PathBuf},
};

use datjob_api::training::{Contents, Dataset};
use flate2::read::MultiGzDecoder;

use super::{DataError, files::is_gzipped, storage};

/// How the files of a data set are laid out.
pub(super) enum Layout {
    Standard(StandardFiles),
    ImageFolder,
    Webdataset,
}

/// The standard files of a data set, without `.gz`, and the folder that the official archive creates.
pub(super) struct StandardFiles {
    pub(super) dataset: Dataset,
    pub(super) format: Format,
    /// The shape and the numbers of images and classes.
    pub(super) contents: Contents,
    pub(super) train: &'static [&'static str],
    pub(super) test: &'static [&'static str],
    pub(super) folder: &'static str,
}

/// The format of standard files.
#[derive(Clone, Copy)]
pub(super) enum Format {
    /// IDX (`idx.rs`), gzipped or not. A gzipped file has the extension `.gz`.
    Idx,
    /// The binary version of CIFAR (`cifar.rs`). The last of the `label_bytes` is the label.
    CifarBinary { label_bytes: usize },
}

const IDX_TRAIN: [&str; 2] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
const IDX_TEST: [&str; 2] = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
const CIFAR_10_TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];

/// The layout of a data set.
pub(super) fn layout(dataset: Dataset) -> Layout {
    let (format, contents, train, test, folder): (_, _, &[_], &[_], _) = match dataset {
        Dataset::Mnist => (Format::Idx, Contents::MNIST, &IDX_TRAIN, &IDX_TEST, "mnist"),
        Dataset::FashionMnist => (Format::Idx, Contents::MNIST, &IDX_TRAIN, &IDX_TEST, "fashion-mnist"),
        Dataset::Cifar10 => {
            let format = Format::CifarBinary { label_bytes: 1 };
            (format, Contents::CIFAR_10, &CIFAR_10_TRAIN, &["test_batch.bin"], "cifar-10-batches-bin")
        }
        Dataset::Cifar100 => {
            // The coarse label is before the fine one.
            let format = Format::CifarBinary { label_bytes: 2 };
            (format, Contents::CIFAR_100, &["train.bin"], &["test.bin"], "cifar-100-binary")
        }
        Dataset::ImageFolder => return Layout::ImageFolder,
        Dataset::Webdataset => return Layout::Webdataset,
    };
    Layout::Standard(StandardFiles { dataset, format, contents, train, test, folder })
}

impl Layout {
    /// The standard files with other numbers of training and test images.
    ///
    /// # Panics
    ///
    /// If the data set has no standard files.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn with_image_counts(self, training_images: usize, test_images: usize) -> StandardFiles {
        let Self::Standard(mut files) = self else { panic!("the data set has no standard files") };
        files.contents = Contents { training_images, test_images, ..files.contents };
        files
    }
}

impl StandardFiles {
    pub(super) fn files(&self) -> impl Iterator<Item = &'static str> {
        self.train.iter().chain(self.test).copied()
    }

    fn allows_gzip(&self) -> bool {
        match self.format {
            Format::Idx => true,
            Format::CifarBinary { .. } => false,
        }
    }

    /// `name`, if it names a standard file; it may end in `.gz` if gzipped files are allowed.
    pub(super) fn standard_name(&self, name: &str) -> Option<String> {
        let plain = if self.allows_gzip() { name.strip_suffix(".gz").unwrap_or(name) } else { name };
        self.files().any(|file| file == plain).then(|| name.to_owned())
    }

    /// The path of a standard file: in `dir`, or in the subfolder of the official archive.
    pub(super) fn find(&self, dir: &Path, file: &'static str) -> Result<PathBuf, DataError> {
        let gzipped = self.allows_gzip().then(|| format!("{file}.gz"));
        for folder in [dir.to_owned(), dir.join(self.folder)] {
            for name in iter::once(file).chain(gzipped.as_deref()) {
                let path = folder.join(name);
                match storage::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => return Ok(path),
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                    Err(source) => return Err(DataError::Read { path, source }),
                }
            }
        }
        Err(DataError::Missing {
            dir: dir.to_owned(),
            file,
            dataset: self.dataset.name(),
            files: self.files().collect::<Vec<_>>().join(", "),
            folder: self.folder,
        })
    }
}

/// The contents of a file after decompression.
pub(super) struct FileContents {
    path: PathBuf,
    bytes: Vec<u8>,
    error: Option<io::Error>,
}

impl FileContents {
    /// Reads a file that should have `expected` bytes. Decompression stops after one byte more.
    pub(super) fn read(path: PathBuf, expected: usize) -> Self {
        let mut bytes = Vec::new();
        let error = Self::read_into(&mut bytes, &path, expected).err();
        Self { path, bytes, error }
    }

    fn read_into(bytes: &mut Vec<u8>, path: &Path, expected: usize) -> io::Result<()> {
        let file = storage::File::open(path)?;
        let limit = expected as u64 + 1;
        bytes.reserve_exact(expected + 1);
        if is_gzipped(path) {
            MultiGzDecoder::new(io::BufReader::new(file)).take(limit).read_to_end(bytes)?;
        } else {
            file.take(limit).read_to_end(bytes)?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes read so far: possibly too few, at most one too many.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, if their number is `expected`.
    pub(super) fn expect_length(self, expected: usize) -> Result<Vec<u8>, DataError> {
        let Self { path, bytes, error } = self;
        let found = bytes.len();
        match error {
            Some(error) if error.kind() == ErrorKind::UnexpectedEof && found < expected => {
                Err(DataError::Truncated { path, expected, found })
            }
            Some(source) => Err(DataError::Read { path, source }),
            None if found < expected => Err(DataError::Truncated { path, expected, found }),
            None if found > expected => Err(DataError::TooLong { path, expected }),
            None => Ok(bytes),
        }
    }
}

/// Rejects labels outside the classes.
pub(super) fn check_labels(path: &Path, labels: &[u8], classes: i64) -> Result<(), DataError> {
    match labels.iter().enumerate().find(|&(_, &label)| i64::from(label) >= classes) {
        None => Ok(()),
        Some((image, &label)) => Err(DataError::Label { path: path.to_owned(), image, label, classes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_agrees_with_the_properties_of_the_data_set() {
        for dataset in Dataset::ALL {
            let contents = match layout(dataset) {
                Layout::Standard(files) => Some(files.contents),
                Layout::ImageFolder | Layout::Webdataset => None,
            };
            assert_eq!(contents, dataset.contents(), "{dataset:?}");
        }
    }
}
