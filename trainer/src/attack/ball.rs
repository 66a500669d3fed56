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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Kind;

    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_ball_or_the_pixel_range(
            pairs in prop::collection::vec((any::<u8>(), -3.0_f32..3.0), 1..50),
            epsilon in 0.0_f64..=1.0,
        ) {
            let images: Vec<f32> = pairs.iter().map(|&(byte, _)| f32::from(byte) / 255.0).collect();
            let moved: Vec<f32> = pairs.iter().map(|&(_, value)| value).collect();
            let images = Tensor::from_slice(&images);
            let ball = LinfBall::new(&images, epsilon).unwrap();
            let projected = ball.project(&Tensor::from_slice(&moved)).unwrap();
            let rounding = 0.5_f64.powi(24);
            for (x, y) in values(&images).into_iter().zip(values(&projected)) {
                prop_assert!((0.0..=1.0).contains(&y));
                prop_assert!((x - y).abs() <= epsilon + rounding, "{x} {y} {epsilon}");
            }
            prop_assert_eq!(ball.project(&projected).unwrap(), projected);
            prop_assert_eq!(ball.project(&images).unwrap(), images);
        }
    }

    #[test]
    fn the_ball_of_radius_0_is_a_point() {
        let images = Tensor::from_slice(&[0.0_f32, 0.3, 1.0]);
        let ball = LinfBall::new(&images, 0.0).unwrap();
        assert_eq!(ball.project(&Tensor::from_slice(&[1.0_f32, -1.0, 0.5])).unwrap(), images);
    }

    #[test]
    fn nan_does_not_pass_for_an_image() {
        let ball = LinfBall::new(&Tensor::from_slice(&[0.5_f32]), 0.1).unwrap();
        assert!(ball.project(&Tensor::from_slice(&[f32::NAN])).unwrap().double_value(&[0]).is_nan());
    }
}
