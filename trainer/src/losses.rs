//! What attacks and objectives are made of: losses of logits, image by image or summed over images.

use tch::{Reduction, TchError, Tensor};

/// Σ cross-entropy of logits.
pub fn summed_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)
}

/// KL(p ‖ q) of each image, `[N]`, from log p and log q `[N, classes]`: Σ p (log p − log q).
pub fn divergence(log_p: &Tensor, log_q: &Tensor) -> Result<Tensor, TchError> {
    log_p.f_exp()?.f_mul(&log_p.f_sub(log_q)?)?.f_sum_dim_intlist(1, false, log_p.kind())
}

/// The logit of a class of each image, `[N]`, from classes `[N]`.
pub fn of_class(logits: &Tensor, class: &Tensor) -> Result<Tensor, TchError> {
    logits.f_gather(1, &class.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)
}

/// The label's logit less the largest of the others, `[N]`: negative where the image is classified wrongly.
pub fn margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let others = logits.f_scatter_value(1, &labels.f_unsqueeze(1)?, f64::NEG_INFINITY)?.f_amax([1], false)?;
    of_class(logits, labels)?.f_sub(&others)
}
