//! The training loss of a rank's shard of a batch, and the losses of logits that objectives and attacks use. Pure, except
//! for the running statistics of the network.

use datjob_api::training::{CrossEntropy, Mart, Objective};
use datjob_data::IGNORE_INDEX;
use tch::{Reduction, TchError, Tensor};

use crate::model::{Mode, Network};

/// `scale` × the sum of the images' losses, a scalar in the graph of the parameters.
///
/// The sums are over the shard. With `scale` = world size / images in the global batch, the mean over ranks is the mean
/// over images, even if shards differ in size. `mode` is [`Mode::Train`] in a training step. There are one or two forward
/// passes, which use batch statistics and update the running ones (as TRADES and MART do). The clean images are forwarded
/// only if the objective needs them. An empty shard's loss is 0 for networks without BatchNorm; with BatchNorm, libtorch
/// rejects an empty batch.
pub fn loss(
    network: &Network,
    objective: &Objective,
    mode: Mode,
    images: &Tensor,
    adversarial: &Tensor,
    labels: &Tensor,
    scale: f64,
) -> Result<Tensor, TchError> {
    let logits = |x: &Tensor| network.forward(x, mode);
    let sum = match objective {
        Objective::CrossEntropy(spec) => {
            let mut total = label_smoothed_cross_entropy(&logits(adversarial)?, labels, spec)?;
            if spec.clean_weight > 0.0 {
                let clean = label_smoothed_cross_entropy(&logits(images)?, labels, spec)?;
                total = total.f_add(&clean.f_mul_scalar(spec.clean_weight)?)?;
            }
            total
        }
        Objective::Trades(spec) => {
            let natural = logits(images)?;
            let adversarial = logits(adversarial)?.f_log_softmax(1, None)?;
            let kind = natural.kind();
            let divergence = kl_divergence(&natural.f_log_softmax(1, None)?, &adversarial)?.f_sum(kind)?;
            summed_cross_entropy(&natural, labels)?.f_add(&divergence.f_mul_scalar(spec.beta)?)?
        }
        Objective::Mart(spec) => mart(&logits(images)?, &logits(adversarial)?, labels, spec)?,
    };
    sum.f_mul_scalar(scale)
}

fn label_smoothed_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    spec: &CrossEntropy,
) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, IGNORE_INDEX, spec.label_smoothing)
}

/// MART: Σ −log p'(y) − log(1.0001 − max over k ≠ y of p'(k)) + β · KL(p ‖ p') · (1 − p(y)), with p on the clean images and
/// p' on the adversarial examples (equations 8 to 11; the constants are those of the published code).
fn mart(natural: &Tensor, adversarial: &Tensor, labels: &Tensor, spec: &Mart) -> Result<Tensor, TchError> {
    const MARGIN_OFFSET: f64 = 1.0001;
    const UNCERTAINTY_OFFSET: f64 = 1.000_000_1;
    let kind = natural.kind();
    let (log_p, log_q) = (natural.f_log_softmax(1, None)?, adversarial.f_log_softmax(1, None)?);
    let label = labels.f_unsqueeze(1)?;
    let wrong = log_q.f_exp()?.f_scatter_value(1, &label, 0.0)?.f_amax(1, false)?;
    let margin = (-wrong).f_add_scalar(MARGIN_OFFSET)?.f_log()?;
    let boosted = summed_cross_entropy(adversarial, labels)?.f_sub(&margin.f_sum(kind)?)?;
    let uncertainty =
        (-log_p.f_gather(1, &label, false)?.f_squeeze_dim(1)?.f_exp()?).f_add_scalar(UNCERTAINTY_OFFSET)?;
    let weighted = kl_divergence(&log_p, &log_q)?.f_mul(&uncertainty)?.f_sum(kind)?;
    boosted.f_add(&weighted.f_mul_scalar(spec.beta)?)
}

/// Sum of the images' cross-entropies.
pub fn summed_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, IGNORE_INDEX, 0.0)
}

/// KL(p ‖ q) of each image, `[N]`, from log p and log q `[N, classes]`: Σ p (log p − log q).
pub fn kl_divergence(log_p: &Tensor, log_q: &Tensor) -> Result<Tensor, TchError> {
    log_p.f_exp()?.f_mul(&log_p.f_sub(log_q)?)?.f_sum_dim_intlist(1, false, log_p.kind())
}

/// The logits `[N]` of one class per image, `[N]`.
pub fn class_logits(logits: &Tensor, class: &Tensor) -> Result<Tensor, TchError> {
    logits.f_gather(1, &class.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)
}

/// The label's logit minus the largest other logit, `[N]`: negative if the image is misclassified.
pub fn margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let others = logits.f_scatter_value(1, &labels.f_unsqueeze(1)?, f64::NEG_INFINITY)?.f_amax([1], false)?;
    class_logits(logits, labels)?.f_sub(&others)
}
