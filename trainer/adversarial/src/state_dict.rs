//! Tensors by name, and the files that they are read from and written to.

use std::path::Path;

use datjob_data::weights::{self, RawTensor, SafetensorsError, ScalarType, WeightsError, safetensors};
use tch::{Device, Kind, TchError, Tensor};

/// Tensors by name, in a fixed order.
pub type StateDict = Vec<(String, Tensor)>;

/// Tensors that cannot be written as safetensors, or bytes that hold none.
#[derive(Debug, thiserror::Error)]
pub enum StateDictError {
    /// The format.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A type of numbers that files do not hold.
    #[error("tensor {name}: unsupported type {kind}; expected Double, Float or Int64")]
    Kind {
        /// The tensor.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// A file of weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// The bytes of a safetensors file that holds `tensors`.
pub fn encode(tensors: &StateDict) -> Result<Vec<u8>, StateDictError> {
    let raw: Result<Vec<_>, _> =
        tensors.iter().map(|(name, tensor)| Ok((name.clone(), to_raw(name, tensor)?))).collect();
    raw.and_then(|raw| Ok(safetensors::encode(&raw)?))
}

/// The tensors of a safetensors file, in the order of their names, on the CPU.
pub fn decode(bytes: &[u8]) -> Result<StateDict, StateDictError> {
    Ok(from_raw(&safetensors::decode(bytes)?)?)
}

/// The tensors of a file that [`weights::read`] reads, on the CPU.
pub fn read(path: &Path) -> Result<StateDict, ReadError> {
    Ok(from_raw(&weights::read(path)?)?)
}

fn from_raw(tensors: &[(String, RawTensor)]) -> Result<StateDict, TchError> {
    let tensor = |(name, raw): &(String, RawTensor)| {
        Ok((name.clone(), Tensor::f_from_data_size(&raw.bytes, &raw.shape, kind(raw.dtype))?))
    };
    tensors.iter().map(tensor).collect()
}

fn to_raw(name: &str, tensor: &Tensor) -> Result<RawTensor, StateDictError> {
    // Files know no strides: channels_last weights go back to the order of their shape.
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let number_type = number_type(tensor.kind()).ok_or_else(|| StateDictError::Kind {
        name: name.to_owned(),
        kind: format!("{:?}", tensor.kind()),
    })?;
    let mut bytes = vec![0; tensor.numel() * number_type.size()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(RawTensor { dtype: number_type, shape: tensor.size(), bytes })
}

fn kind(number_type: ScalarType) -> Kind {
    match number_type {
        ScalarType::F64 => Kind::Double,
        ScalarType::F32 => Kind::Float,
        ScalarType::F16 => Kind::Half,
        ScalarType::BF16 => Kind::BFloat16,
        ScalarType::I64 => Kind::Int64,
        ScalarType::I32 => Kind::Int,
        ScalarType::I16 => Kind::Int16,
        ScalarType::I8 => Kind::Int8,
        ScalarType::U8 => Kind::Uint8,
    }
}

/// The types that checkpoints and weights hold.
fn number_type(kind: Kind) -> Option<ScalarType> {
    match kind {
        Kind::Double => Some(ScalarType::F64),
        Kind::Float => Some(ScalarType::F32),
        Kind::Int64 => Some(ScalarType::I64),
        _ => None,
    }
}
