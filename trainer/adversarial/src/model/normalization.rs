//! Normalisation of the input.

use tch::{Device, Kind, TchError, Tensor};

/// (x − mean) / deviation for each channel. The constants are not part of the network's state, as in RobustBench's models.
#[derive(Debug)]
pub(super) struct Normalization {
    mean: Tensor,
    deviation: Tensor,
}

impl Normalization {
    pub(super) fn new(
        mean: &[f64],
        deviation: &[f64],
        (kind, device): (Kind, Device),
    ) -> Result<Self, TchError> {
        let channels = |values: &[f64]| {
            Tensor::f_from_slice(values)?.f_view([1, -1, 1, 1])?.f_to_kind(kind)?.f_to_device(device)
        };
        Ok(Self { mean: channels(mean)?, deviation: channels(deviation)? })
    }

    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        images.f_sub(&self.mean)?.f_div_(&self.deviation)
    }
}
