//! State dicts, and the files that hold them.

use std::path::Path;

use datjob_c10d::libtorch_message;
use datjob_data::weights::{
    self, RawTensor, SafetensorsError, ScalarType, WeightsCard, WeightsError, safetensors,
};
use tch::{Device, Kind, TchError, Tensor};

/// Named tensors in a fixed order.
pub type StateDict = Vec<(String, Tensor)>;

/// Encoding or decoding a safetensors file failed.
#[derive(Debug, thiserror::Error)]
pub enum StateDictError {
    /// The file format is invalid.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A tensor has a type that checkpoints do not support.
    #[error("tensor {name}: unsupported type {kind}; expected Double, Float or Int64")]
    Kind {
        /// Name of the tensor.
        name: String,
        /// Kind of the tensor.
        kind: String,
    },
    /// libtorch failed.
    #[error("{}", libtorch_message(.0))]
    Torch(#[from] TchError),
}

/// Reading a file of weights failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is invalid or unreadable.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// libtorch failed.
    #[error("{}", libtorch_message(.0))]
    Torch(#[from] TchError),
}

/// Encodes tensors as a safetensors file, with a card if there is one.
pub fn encode(tensors: &StateDict, card: Option<&WeightsCard>) -> Result<Vec<u8>, StateDictError> {
    let raw: Result<Vec<_>, _> =
        tensors.iter().map(|(name, tensor)| Ok((name.clone(), to_raw(name, tensor)?))).collect();
    raw.and_then(|raw| Ok(safetensors::encode(&raw, card.map(WeightsCard::to_json).as_deref())?))
}

/// Decodes a safetensors file. The tensors are sorted by name and on the CPU.
pub fn decode(bytes: &[u8]) -> Result<StateDict, StateDictError> {
    Ok(from_raw(&safetensors::decode(bytes)?.tensors)?)
}

/// Reads a file of weights, as [`weights::read`] does, with its card, if it has a valid one. The tensors are on the CPU.
pub fn read(path: &Path) -> Result<(StateDict, Option<WeightsCard>), ReadError> {
    let file = weights::read(path)?;
    Ok((from_raw(&file.tensors)?, file.card.as_deref().and_then(WeightsCard::from_json)))
}

fn from_raw(tensors: &[(String, RawTensor)]) -> Result<StateDict, TchError> {
    let tensor = |(name, raw): &(String, RawTensor)| {
        Ok((name.clone(), Tensor::f_from_data_size(&raw.bytes, &raw.shape, kind(raw.dtype))?))
    };
    tensors.iter().map(tensor).collect()
}

fn to_raw(name: &str, tensor: &Tensor) -> Result<RawTensor, StateDictError> {
    // Files have no strides: channels_last weights are converted to the contiguous format.
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

/// The types that checkpoints support.
fn number_type(kind: Kind) -> Option<ScalarType> {
    match kind {
        Kind::Double => Some(ScalarType::F64),
        Kind::Float => Some(ScalarType::F32),
        Kind::Int64 => Some(ScalarType::I64),
        _ => None,
    }
}
