//! The loss of a rank's shard of a batch.

use datjob_api::training::Objective;
use tch::{Reduction, TchError, Tensor};

use crate::model::{Mode, Network};

/// `scale` × (Σ cross-entropy of the adversarial examples + `cleanWeight` × Σ cross-entropy of the images), a scalar
/// in the graph of the parameters.
///
/// The sums are over the shard. With `scale` = world size / images in the global batch, the mean over ranks is the mean
/// over images even where shards differ in size. Up to two forward passes, both with batch statistics and both updating
/// the running ones (as TRADES and MART do); the images alone are not passed forward where their weight is 0. An empty
/// shard's loss is 0 for networks without BatchNorm; with it, libtorch refuses an empty batch.
pub fn loss(
    network: &Network,
    objective: &Objective,
    images: &Tensor,
    adversarial: &Tensor,
    labels: &Tensor,
    scale: f64,
) -> Result<Tensor, TchError> {
    let Objective::CrossEntropy(spec) = objective;
    let sum = |x: &Tensor| {
        let logits = network.forward(x, Mode::Train)?;
        logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)
    };
    let mut total = sum(adversarial)?;
    if spec.clean_weight > 0.0 {
        total = total.f_add(&sum(images)?.f_mul_scalar(spec.clean_weight)?)?;
    }
    total.f_mul_scalar(scale)
}
