use tch::{Device, no_grad};

use super::EvaluateError;
use crate::{
    data::Images,
    model::{Mode, Network},
};

/// The class that the network gives each of these images, as they are.
pub fn predict(
    network: &Network,
    images: &Images,
    indices: &[usize],
    device: Device,
) -> Result<Vec<i64>, EvaluateError> {
    let (pixels, _) = images.read(indices, None)?.numbers(device)?;
    let classes = no_grad(|| network.forward(&pixels, Mode::Eval)?.f_argmax(1, false))?;
    Ok(Vec::try_from(classes)?)
}
