use tch::{TchError, Tensor, no_grad};

/// All images within ε of the given ones in ℓ∞ and with pixels in [0, 1].
///
/// The bounds max(x − ε, 0) and min(x + ε, 1) are computed once, in the kind of the images, and an image is in the ball
/// exactly if it lies between them. So |x' − x| exceeds ε by no more than the rounding of x ± ε (2⁻²⁵ in f32), and
/// projecting again changes no bit.
#[derive(Debug)]
pub struct LinfBall {
    low: Tensor,
    high: Tensor,
}

impl LinfBall {
    /// The ball around images with pixels in [0, 1].
    pub fn new(images: &Tensor, epsilon: f64) -> Result<Self, TchError> {
        no_grad(|| {
            let low = images.f_sub_scalar(epsilon)?.f_clamp_(0.0, 1.0)?;
            let high = images.f_add_scalar(epsilon)?.f_clamp_(0.0, 1.0)?;
            Ok(Self { low, high })
        })
    }

    /// The nearest image in the ball. NaN stays NaN: it must not pass for an image.
    pub fn project(&self, images: &Tensor) -> Result<Tensor, TchError> {
        no_grad(|| images.f_maximum(&self.low)?.f_minimum(&self.high))
    }
}
