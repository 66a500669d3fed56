//! Splits a batch into parts that fit in memory.

use std::ops::Range;

use datjob_c10d::{LibtorchErrorKind, classify_libtorch_error};
use tch::{Device, TchError, Tensor};

/// Most values of a part's images on a CPU, where too much memory ends the process: 250 images of CIFAR, 16 of ImageNet. A
/// GPU reports it, and the parts become smaller.
const CPU_VALUES: i64 = 16 * 3 * 224 * 224;

/// The size of the parts. The counts do not depend on it, but for the rounding of kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    size: usize,
}

impl Parts {
    /// The first size, for images of a shape in batches of `batch`.
    pub(crate) fn new(device: Device, image_shape: [i64; 3], batch: usize) -> Self {
        let values = image_shape.iter().product::<i64>().max(1);
        let most = if device == Device::Cpu { (CPU_VALUES / values).max(1) as usize } else { batch };
        Self { size: most.min(batch) }
    }

    /// The results of `compute` for consecutive rows, concatenated. Where the memory is too small for a part, all following
    /// parts have half of its size.
    pub(crate) fn compute(
        &mut self,
        rows: usize,
        compute: impl Fn(Range<usize>) -> Result<Tensor, TchError>,
    ) -> Result<Tensor, TchError> {
        loop {
            let starts = (0..rows).step_by(self.size);
            let results: Result<Vec<Tensor>, TchError> =
                starts.map(|start| compute(start..(start + self.size).min(rows))).collect();
            match results {
                Err(error) if self.size > 1 && is_out_of_memory(&error) => {
                    self.size = self.size.min(rows).div_ceil(2);
                    tracing::warn!(
                        images = self.size,
                        "Out of memory in an evaluation; continuing with fewer images at once."
                    );
                }
                results => return Tensor::f_cat(&results?, 0),
            }
        }
    }
}

/// Whether the memory of the device was too small.
fn is_out_of_memory(error: &TchError) -> bool {
    classify_libtorch_error(&error.to_string()) == LibtorchErrorKind::OutOfMemory
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Computes `rows` rows with a memory for `memory` of them; the sizes of the parts that were tried.
    fn sizes(rows: usize, memory: usize) -> (Vec<usize>, Result<Tensor, TchError>) {
        let tried = RefCell::new(Vec::new());
        let result = Parts { size: 250 }.compute(rows, |part| {
            tried.borrow_mut().push(part.len());
            if part.len() > memory {
                return Err(TchError::Torch("CUDA out of memory. Tried to allocate 2 GiB".into()));
            }
            Ok(Tensor::from_slice(&part.map(|row| row as i64).collect::<Vec<_>>()))
        });
        (tried.into_inner(), result)
    }

    #[test]
    fn parts_become_smaller_until_they_fit() {
        for (rows, memory, expected) in [
            (250, 250, vec![250]),
            (250, 100, vec![250, 125, 63, 63, 63, 61]),
            (100, 60, vec![100, 50, 50]),
            (3, 1, vec![3, 2, 1, 1, 1]),
        ] {
            let (tried, result) = sizes(rows, memory);
            assert_eq!(tried, expected);
            assert_eq!(Vec::<i64>::try_from(result.unwrap()).unwrap(), (0..rows as i64).collect::<Vec<_>>());
        }
        assert!(sizes(10, 0).1.unwrap_err().to_string().contains("out of memory"), "one image does not fit");
    }

    #[test]
    fn other_errors_are_returned_at_once() {
        let error = TchError::Torch("shape mismatch".into());
        let calls = RefCell::new(0);
        let result = Parts { size: 250 }.compute(9, |_| {
            *calls.borrow_mut() += 1;
            Err(TchError::Torch(error.to_string()))
        });
        assert!(result.is_err());
        assert_eq!(calls.into_inner(), 1);
    }

    #[test]
    fn large_images_have_small_parts_on_a_cpu() {
        let size = |device, shape| Parts::new(device, shape, 250).size;
        assert_eq!(size(Device::Cpu, [1, 28, 28]), 250);
        assert_eq!(size(Device::Cpu, [3, 32, 32]), 250);
        assert_eq!(size(Device::Cpu, [3, 224, 224]), 16);
        assert_eq!(size(Device::Cpu, [3, 1024, 1024]), 1);
        assert_eq!(size(Device::Cuda(0), [3, 224, 224]), 250);
    }
}
