//! Files of weights: safetensors, or what `torch.save` writes of a state dict. Without libtorch: what is read are bytes with
//! a shape, so that the parsers can be built, tested and fuzzed alone.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::files::{self, FileError};

mod pickle;
mod pytorch;
pub mod safetensors;

pub use pickle::PickleError;
pub use pytorch::PytorchError;
pub use safetensors::SafetensorsError;

/// Largest file of tensors that is read, in bytes.
pub const TENSORS_MAX_BYTES: u64 = 64 << 30;
/// How a zip archive begins.
const ZIP: [u8; 4] = *b"PK\x03\x04";

/// A tensor as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// What its numbers are.
    pub number_type: NumberType,
    /// Its lengths.
    pub shape: Vec<i64>,
    /// Its numbers in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

/// Types of numbers that files of weights hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum NumberType {
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

impl NumberType {
    /// Bytes of a number.
    pub fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }
}

/// Weights that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// A safetensors file.
    #[error("{}: {error}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: SafetensorsError,
    },
    /// A PyTorch file.
    #[error("{}: {error}", path.display())]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PytorchError,
    },
}

/// The tensors of a file by name. A zip archive is read as PyTorch's, anything else as safetensors.
pub fn read(path: &Path) -> Result<Vec<(String, RawTensor)>, WeightsError> {
    let failed = |error| FileError::new("read", path, error);
    let mut begin = [0; 4];
    let mut file = File::open(path).map_err(failed)?;
    match file.read_exact(&mut begin) {
        Ok(()) if begin == ZIP => {
            pytorch::read(file).map_err(|error| WeightsError::Pytorch { path: path.to_owned(), error })
        }
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failed(error).into()),
        _ => {
            let bytes = files::read_if_exists(path, TENSORS_MAX_BYTES)?
                .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            safetensors::decode(&bytes)
                .map_err(|error| WeightsError::Safetensors { path: path.to_owned(), error })
        }
    }
}
