//! Encodes and decodes safetensors. Pure.

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use super::{RawTensor, ScalarType};

/// Invalid safetensors bytes, or tensors that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// An unsupported element type.
    #[error("tensor {name}: unsupported type {dtype}; expected F32, F64 or I64")]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: String,
    },
    /// The format is invalid.
    #[error("invalid safetensors file: {0}")]
    Format(#[from] SafeTensorError),
}

/// Encodes `tensors`.
pub fn encode(tensors: &[(String, RawTensor)]) -> Result<Vec<u8>, SafetensorsError> {
    let views: Result<Vec<_>, SafetensorsError> = tensors
        .iter()
        .map(|(name, tensor)| {
            let format_dtype = match tensor.dtype {
                ScalarType::F32 => Dtype::F32,
                ScalarType::F64 => Dtype::F64,
                ScalarType::I64 => Dtype::I64,
                other => return Err(unsupported(name, &format!("{other:?}"))),
            };
            let shape = tensor.shape.iter().map(|&length| length as usize).collect();
            Ok((name.as_str(), TensorView::new(format_dtype, shape, &tensor.bytes)?))
        })
        .collect();
    Ok(safetensors::serialize(views?, None)?)
}

/// Decodes tensors; they are sorted by name.
pub fn decode(bytes: &[u8]) -> Result<Vec<(String, RawTensor)>, SafetensorsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let dtype = match view.dtype() {
            Dtype::F32 => ScalarType::F32,
            Dtype::F64 => ScalarType::F64,
            Dtype::I64 => ScalarType::I64,
            other => return Err(unsupported(&name, &format!("{other:?}"))),
        };
        let shape = view.shape().iter().map(|&length| length as i64).collect();
        tensors.push((name, RawTensor { dtype, shape, bytes: view.data().to_vec() }));
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tensors)
}

fn unsupported(name: &str, dtype: &str) -> SafetensorsError {
    SafetensorsError::UnsupportedType { name: name.to_owned(), dtype: dtype.to_owned() }
}
