//! Training for randomised smoothing: each image stands for copies with Gaussian noise (Salman et al., "Provably robust
//! deep learning via adversarially trained smoothed classifiers", arXiv 1906.04584; Smooth-AT in arXiv 2206.06257).

use tch::{Reduction, TchError, Tensor};

/// Noisy copies of the images of a batch. The noise belongs to the images and stays through attack and training step.
#[derive(Debug)]
pub struct NoisyCopies {
    samples: i64,
    noise: Tensor,
}

impl NoisyCopies {
    /// `noise`: `[N · samples, C, H, W]`, that of sample j of image i in row i · samples + j.
    pub fn new(samples: u32, noise: Tensor) -> Self {
        Self { samples: i64::from(samples), noise }
    }

    /// How many copies there are of each image.
    pub fn samples(&self) -> i64 {
        self.samples
    }

    /// The copies of images `[N, C, H, W]`, in the order of the noise. Not clipped: the smoothed classifier is defined over
    /// all of the space.
    pub fn of(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.repeat(images)?.f_add(&self.noise)
    }

    /// The labels of the copies.
    pub fn labels(&self, labels: &Tensor) -> Result<Tensor, TchError> {
        self.repeat(labels)
    }

    /// What the attack makes large, from the copies' logits and the images' labels: Σ −log of the mean over copies of the
    /// label's probability (equation 5 of arXiv 1906.04584).
    pub fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        let classes = logits.size()[1];
        let log_probabilities = logits.f_log_softmax(1, None)?.f_view([-1, self.samples, classes])?;
        let mean = log_probabilities.f_logsumexp([1], false)?.f_sub_scalar((self.samples as f64).ln())?;
        mean.f_nll_loss(labels, None::<&Tensor>, Reduction::Sum, -100)
    }

    fn repeat(&self, tensor: &Tensor) -> Result<Tensor, TchError> {
        tensor.f_repeat_interleave_self_int(self.samples, 0, None)
    }
}
