//! Weights that others made: a safetensors file, or what `torch.save` writes of a state dict.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    checkpoint::{self, CheckpointError, Named},
    files::FileError,
};

mod pickle;
mod pytorch;

pub use pickle::PickleError;
pub use pytorch::PytorchError;

/// How a zip archive begins.
const ZIP: [u8; 4] = *b"PK\x03\x04";

/// Weights that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// A safetensors file.
    #[error(transparent)]
    Safetensors(#[from] CheckpointError),
    /// A PyTorch file.
    #[error("{}: {error}", path.display())]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PytorchError,
    },
}

/// The tensors of a file by name, on the CPU. A zip archive is read as PyTorch's, anything else as safetensors.
pub fn read(path: &Path) -> Result<Named, WeightsError> {
    let failed = |error| FileError::new("read", path, error);
    let mut begin = [0; 4];
    let mut file = File::open(path).map_err(failed)?;
    match file.read_exact(&mut begin) {
        Ok(()) if begin == ZIP => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(failed(error).into()),
        _ => return Ok(checkpoint::read_weights(path)?),
    }
    pytorch::read(file).map_err(|error| WeightsError::Pytorch { path: path.to_owned(), error })
}
