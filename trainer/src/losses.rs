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
