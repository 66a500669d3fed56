//! Tensors as safetensors bytes and back.

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use tch::{Kind, TchError, Tensor};

use super::Named;

/// Tensors that cannot be written as safetensors, or bytes that are none.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A kind of number that is not used here.
    #[error("tensor {name} has the kind {kind}, which checkpoints do not hold")]
    Kind {
        /// The tensor.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// No safetensors.
    #[error("no safetensors file: {0}")]
    Safetensors(#[from] SafeTensorError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// The bytes of a safetensors file that holds `tensors`.
pub(super) fn encode(tensors: &Named) -> Result<Vec<u8>, FormatError> {
    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        // safetensors knows no strides: channels_last weights go back to the order of their shape.
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let (dtype, size) = dtype(name, tensor.kind())?;
        let mut bytes = vec![0; tensor.numel() * size];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape = tensor.size().iter().map(|&length| length as usize).collect();
        data.push((name, dtype, shape, bytes));
    }
    let views: Result<Vec<_>, SafeTensorError> = data
        .iter()
        .map(|(name, dtype, shape, bytes): &(_, _, Vec<usize>, _)| {
            Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect();
    Ok(safetensors::serialize(views?, None)?)
}

/// The tensors of a safetensors file, in the order of their names.
pub(super) fn decode(bytes: &[u8]) -> Result<Named, FormatError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            other => return Err(FormatError::Kind { name, kind: format!("{other:?}") }),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
        tensors.push((name, Tensor::f_from_data_size(view.data(), &shape, kind)?));
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tensors)
}

fn dtype(name: &str, kind: Kind) -> Result<(Dtype, usize), FormatError> {
    match kind {
        Kind::Float => Ok((Dtype::F32, 4)),
        Kind::Double => Ok((Dtype::F64, 8)),
        Kind::Int64 => Ok((Dtype::I64, 8)),
        other => Err(FormatError::Kind { name: name.to_owned(), kind: format!("{other:?}") }),
    }
}
