//! The channels_last memory format, which tch does not support.
//!
//! A tensor `[N, C, H, W]` in channels_last keeps its shape. In memory, the channels of a pixel are adjacent, which makes
//! convolutions on CPUs and on tensor cores faster.

use std::ptr;

use tch::Tensor;

use crate::{
    error::C10dError,
    ffi::{self, check},
};

/// Converts a tensor `[N, C, H, W]` to channels_last. Returns the same tensor if it already has this format, otherwise a
/// copy. Autograd tracks the conversion.
pub fn contiguous_channels_last(tensor: &Tensor) -> Result<Tensor, C10dError> {
    const OPERATION: &str = "contiguous_channels_last";
    require_image(OPERATION, tensor)?;
    let mut out = ptr::null_mut();
    // SAFETY: the tensor lives through the call, and the last argument points to space for the result.
    let result = check(unsafe { ffi::datjob_tensor_contiguous_channels_last(tensor.as_ptr(), &raw mut out) });
    result.map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
    // SAFETY: the caller owns the tensor that the bridge returns.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Converts a parameter `[O, I, H, W]` to channels_last in place. The change applies to all handles to the parameter (of a
/// `VarStore`, an optimizer, a module), and gradients get the same format. Views, for example from `detach()`, keep the old
/// memory. Call it before a [`Reducer`](crate::Reducer) is created.
pub fn to_channels_last_(parameter: &Tensor) -> Result<(), C10dError> {
    const OPERATION: &str = "to_channels_last_";
    require_image(OPERATION, parameter)?;
    // SAFETY: the tensor lives through the call.
    let result = check(unsafe { ffi::datjob_tensor_set_channels_last(parameter.as_ptr()) });
    result.map_err(|message| C10dError::from_message(OPERATION, None, &message))
}

fn require_image(operation: &str, tensor: &Tensor) -> Result<(), C10dError> {
    if !tensor.defined() {
        return Err(C10dError::invalid(operation, None, "the tensor is undefined"));
    }
    match tensor.dim() {
        4 => Ok(()),
        dimensions => {
            let message = format!("channels_last requires 4 dimensions, got {dimensions}");
            Err(C10dError::invalid(operation, None, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    fn image() -> Tensor {
        Tensor::arange(2 * 3 * 4 * 5, (Kind::Double, Device::Cpu)).view([2, 3, 4, 5])
    }

    #[test]
    fn a_copy_has_other_strides_and_the_same_values() {
        let image = image();
        let changed = contiguous_channels_last(&image).unwrap();
        assert_eq!(changed.stride(), [60, 1, 15, 3]);
        assert_eq!(image.stride(), [60, 20, 5, 1]);
        assert_eq!(changed, image);
    }

    #[test]
    fn channels_last_tensors_are_not_copied() {
        let changed = contiguous_channels_last(&image()).unwrap();
        let again = contiguous_channels_last(&changed).unwrap();
        assert_eq!(again.data_ptr(), changed.data_ptr());
    }

    #[test]
    fn gradients_flow_through_the_copy() {
        let image = image().set_requires_grad(true);
        let loss = (contiguous_channels_last(&image).unwrap() * 3.0).sum(Kind::Double);
        loss.f_backward().unwrap();
        assert_eq!(image.grad(), Tensor::full([2, 3, 4, 5], 3.0, (Kind::Double, Device::Cpu)));
    }

    #[test]
    fn all_handles_and_the_gradient_of_a_parameter_change() {
        let parameter = image().set_requires_grad(true);
        let handle = parameter.shallow_clone();
        to_channels_last_(&parameter).unwrap();
        assert_eq!(handle.stride(), [60, 1, 15, 3]);
        assert_eq!(handle.detach(), image());
        assert!(handle.requires_grad() && handle.is_leaf());
        (&handle * &handle).sum(Kind::Double).f_backward().unwrap();
        assert_eq!(parameter.grad(), image() * 2.0);
        assert_eq!(parameter.grad().stride(), [60, 1, 15, 3]);
    }

    #[test]
    fn rejects_other_shapes() {
        let matrix = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        for error in [
            contiguous_channels_last(&matrix).unwrap_err(),
            to_channels_last_(&matrix).unwrap_err(),
            contiguous_channels_last(&Tensor::new()).unwrap_err(),
        ] {
            assert!(matches!(error, C10dError::InvalidArgument(_)), "{error}");
        }
    }
}
