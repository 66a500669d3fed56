//! Finding and reading the standard files, with a bound on every size.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use datjob_api::training::{Contents, Dataset};
use flate2::read::MultiGzDecoder;

use super::{DataError, files::is_gzipped};

/// The standard files of a data set, without `.gz`, and the folder that its own archive unpacks to.
pub(super) struct Layout {
    pub(super) dataset: Dataset,
    /// What the files hold.
    pub(super) contents: Contents,
    pub(super) train: &'static [&'static str],
    pub(super) test: &'static [&'static str],
    pub(super) folder: &'static str,
    /// Whether a file may be gzipped, with `.gz` after its name.
    pub(super) gzip: bool,
}

const IDX_TRAIN: [&str; 2] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
const IDX_TEST: [&str; 2] = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
const CIFAR_10_TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];

/// The layout of a data set that consists of standard files.
pub(super) fn layout(dataset: Dataset) -> Option<Layout> {
    let contents = dataset.contents()?;
    let idx = |folder| Layout { dataset, contents, train: &IDX_TRAIN, test: &IDX_TEST, folder, gzip: true };
    let binary = |train, test, folder| Layout { dataset, contents, train, test, folder, gzip: false };
    match dataset {
        Dataset::Mnist => Some(idx("mnist")),
        Dataset::FashionMnist => Some(idx("fashion-mnist")),
        Dataset::Cifar10 => Some(binary(&CIFAR_10_TRAIN, &["test_batch.bin"], "cifar-10-batches-bin")),
        Dataset::Cifar100 => Some(binary(&["train.bin"], &["test.bin"], "cifar-100-binary")),
        Dataset::ImageFolder | Dataset::Webdataset => None,
    }
}

impl Layout {
    pub(super) fn files(&self) -> impl Iterator<Item = &'static str> {
        self.train.iter().chain(self.test).copied()
    }

    /// `name`, if it is that of a standard file, with `.gz` where that is allowed.
    pub(super) fn standard_name(&self, name: &str) -> Option<String> {
        let plain = if self.gzip { name.strip_suffix(".gz").unwrap_or(name) } else { name };
        self.files().any(|file| file == plain).then(|| name.to_owned())
    }

    /// The path of a standard file: in `dir`, or in the data set's folder below it.
    pub(super) fn find(&self, dir: &Path, file: &'static str) -> Result<PathBuf, DataError> {
        for place in [dir.to_owned(), dir.join(self.folder)] {
            let plain = place.join(file);
            if plain.is_file() {
                return Ok(plain);
            }
            let gzipped = place.join(format!("{file}.gz"));
            if self.gzip && gzipped.is_file() {
                return Ok(gzipped);
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

/// What was read of a file, unpacked.
pub(super) struct Unpacked {
    path: PathBuf,
    bytes: Vec<u8>,
    error: Option<io::Error>,
}

impl Unpacked {
    /// Reads a file that should hold `expected` bytes; never unpacks more than one byte beyond them.
    pub(super) fn read(path: PathBuf, expected: usize) -> Self {
        let mut bytes = Vec::new();
        let error = Self::read_into(&mut bytes, &path, expected).err();
        Self { path, bytes, error }
    }

    fn read_into(bytes: &mut Vec<u8>, path: &Path, expected: usize) -> io::Result<()> {
        let file = File::open(path)?;
        let most = expected as u64 + 1;
        bytes.reserve_exact(expected + 1);
        if is_gzipped(path) {
            MultiGzDecoder::new(io::BufReader::new(file)).take(most).read_to_end(bytes)?;
        } else {
            file.take(most).read_to_end(bytes)?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What could be read; perhaps too little, at most one byte too much.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, if they are as many as expected.
    pub(super) fn exactly(self, expected: usize) -> Result<Vec<u8>, DataError> {
        let Self { path, bytes, error } = self;
        let found = bytes.len();
        match error {
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof && found < expected => {
                Err(DataError::Truncated { path, expected, found })
            }
            Some(source) => Err(DataError::Read { path, source }),
            None if found < expected => Err(DataError::Truncated { path, expected, found }),
            None if found > expected => Err(DataError::TooLong { path, expected }),
            None => Ok(bytes),
        }
    }
}

/// Refuses labels that stand for no class.
pub(super) fn check_labels(path: &Path, labels: &[u8], classes: i64) -> Result<(), DataError> {
    match labels.iter().enumerate().find(|&(_, &label)| i64::from(label) >= classes) {
        None => Ok(()),
        Some((image, &label)) => Err(DataError::Label { path: path.to_owned(), image, label, classes }),
    }
}
