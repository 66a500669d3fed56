//! Training for randomised smoothing: each image becomes several copies with Gaussian noise (Salman et al., "Provably
//! robust deep learning via adversarially trained smoothed classifiers", arXiv 1906.04584; Smooth-AT in arXiv
//! 2206.06257). Pure.

use datjob_data::IGNORE_INDEX;
use tch::{Reduction, TchError, Tensor};

/// Noisy copies of the images of a batch. The attack and the training step use the same noise.
#[derive(Debug)]
pub struct NoisyCopies {
    samples: i64,
    noise: Tensor,
}

impl NoisyCopies {
    /// `noise` is `[N · samples, C, H, W]`; row i · samples + j is the noise of sample j of image i.
    pub fn new(samples: u32, noise: Tensor) -> Self {
        Self { samples: i64::from(samples), noise }
    }

    /// Number of copies of each image.
    pub fn samples(&self) -> i64 {
        self.samples
    }

    /// Repeats images `[N, C, H, W]` and adds the noise. Pixels are not clipped: the smoothed classifier is defined on the
    /// whole space.
    pub fn add_noise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.repeat(images)?.f_add(&self.noise)
    }

    /// The labels of the copies.
    pub fn labels(&self, labels: &Tensor) -> Result<Tensor, TchError> {
        self.repeat(labels)
    }

    /// The loss that the attack maximises, from the copies' logits and the images' labels: Σ −log of the label's mean
    /// probability over the copies (equation 5 of arXiv 1906.04584).
    pub fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        let classes = logits.size()[1];
        let log_probabilities = logits.f_log_softmax(1, None)?.f_view([-1, self.samples, classes])?;
        let mean = log_probabilities.f_logsumexp([1], false)?.f_sub_scalar((self.samples as f64).ln())?;
        mean.f_nll_loss(labels, None::<&Tensor>, Reduction::Sum, IGNORE_INDEX)
    }

    fn repeat(&self, tensor: &Tensor) -> Result<Tensor, TchError> {
        tensor.f_repeat_interleave_self_int(self.samples, 0, None)
    }
}
