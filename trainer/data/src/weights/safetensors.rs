//! Encodes and decodes safetensors. Pure.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use super::{RawTensor, ScalarType, WeightFile};

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

/// Name of the card in the metadata of a file.
const CARD: &str = "datjob";

/// Encodes `tensors`, with a card if there is one. The same input gives the same bytes.
pub fn encode(tensors: &[(String, RawTensor)], card: Option<&str>) -> Result<Vec<u8>, SafetensorsError> {
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
    // One entry: the crate writes several in random order.
    let metadata = card.map(|card| HashMap::from([(CARD.to_owned(), card.to_owned())]));
    Ok(safetensors::serialize(views?, metadata)?)
}

/// Decodes tensors, sorted by name, and the card of a file that [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<WeightFile, SafetensorsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let card = header.metadata().as_ref().and_then(|metadata| metadata.get(CARD).cloned());
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
    Ok(WeightFile { tensors, card })
}

fn unsupported(name: &str, dtype: &str) -> SafetensorsError {
    SafetensorsError::UnsupportedType { name: name.to_owned(), dtype: dtype.to_owned() }
}
