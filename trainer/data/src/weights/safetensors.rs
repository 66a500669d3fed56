//! Tensors as safetensors bytes and back. Pure.

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use super::{NumberType, RawTensor};

/// Bytes that are not a safetensors file, or tensors that cannot be written as one.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// A type of numbers that is not used here.
    #[error("tensor {name}: unsupported type {dtype}; expected F32, F64 or I64")]
    NumberType {
        /// The tensor.
        name: String,
        /// Its type of numbers.
        dtype: String,
    },
    /// No safetensors.
    #[error("invalid safetensors file: {0}")]
    Format(#[from] SafeTensorError),
}

/// The bytes of a safetensors file that holds `tensors`.
pub fn encode(tensors: &[(String, RawTensor)]) -> Result<Vec<u8>, SafetensorsError> {
    let views: Result<Vec<_>, SafetensorsError> = tensors
        .iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.number_type {
                NumberType::F32 => Dtype::F32,
                NumberType::F64 => Dtype::F64,
                NumberType::I64 => Dtype::I64,
                other => return Err(unsupported(name, &format!("{other:?}"))),
            };
            let shape = tensor.shape.iter().map(|&length| length as usize).collect();
            Ok((name.as_str(), TensorView::new(dtype, shape, &tensor.bytes)?))
        })
        .collect();
    Ok(safetensors::serialize(views?, None)?)
}

/// The tensors of a safetensors file, in the order of their names.
pub fn decode(bytes: &[u8]) -> Result<Vec<(String, RawTensor)>, SafetensorsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let number_type = match view.dtype() {
            Dtype::F32 => NumberType::F32,
            Dtype::F64 => NumberType::F64,
            Dtype::I64 => NumberType::I64,
            other => return Err(unsupported(&name, &format!("{other:?}"))),
        };
        let shape = view.shape().iter().map(|&length| length as i64).collect();
        tensors.push((name, RawTensor { number_type, shape, bytes: view.data().to_vec() }));
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tensors)
}

fn unsupported(name: &str, dtype: &str) -> SafetensorsError {
    SafetensorsError::NumberType { name: name.to_owned(), dtype: dtype.to_owned() }
}
