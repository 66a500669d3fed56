//! Reads weight files: safetensors, or a state dict from `torch.save`. The result is bytes with a shape, so the parsers can be
//! built, tested and fuzzed without libtorch.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{files::FileError, storage};

mod card;
mod pickle;
mod pytorch;
pub mod safetensors;

pub use card::WeightsCard;
pub use pickle::PickleError;
pub use pytorch::PytorchError;
pub use safetensors::SafetensorsError;

/// Maximum size of a weight file in bytes.
pub const TENSORS_MAX_BYTES: u64 = 64 << 30;
/// The magic number of a zip archive.
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";

/// A tensor as stored in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// The type of the elements.
    pub dtype: ScalarType,
    /// The size of each dimension.
    pub shape: Vec<i64>,
    /// The elements in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

/// The content of a weight file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFile {
    /// The tensors with their names.
    pub tensors: Vec<(String, RawTensor)>,
    /// The [`WeightsCard`] as JSON, in files that DatJob wrote.
    pub card: Option<String>,
}

/// The element types of weight files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
pub enum ScalarType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl ScalarType {
    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }
}

/// A weight file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// An invalid safetensors file.
    #[error("{}: {error}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The problem.
        error: SafetensorsError,
    },
    /// An invalid PyTorch file.
    #[error("{}: {error}", path.display())]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// The problem.
        error: PytorchError,
    },
}

/// Reads a weight file. A zip archive is read as a PyTorch file, any other file as safetensors.
pub fn read(path: &Path) -> Result<WeightFile, WeightsError> {
    let failed = |error| FileError::new("read", path, error);
    let mut magic = [0; 4];
    let mut file = storage::File::open(path).map_err(failed)?;
    match file.read_exact(&mut magic) {
        Ok(()) if magic == ZIP_MAGIC => {
            let tensors = pytorch::read(file)
                .map_err(|error| WeightsError::Pytorch { path: path.to_owned(), error })?;
            Ok(WeightFile { tensors, card: None })
        }
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failed(error).into()),
        _ => {
            let bytes = storage::read_if_exists(path, TENSORS_MAX_BYTES)?
                .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            safetensors::decode(&bytes)
                .map_err(|error| WeightsError::Safetensors { path: path.to_owned(), error })
        }
    }
}
