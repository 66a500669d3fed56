//! The ball of allowed perturbations around images, with pixels in [0, 1]. Pure.

use datjob_api::training::Norm;
use tch::{TchError, Tensor, no_grad};

use super::PerturbationSet;

/// Lower bound of divisors: a zero gradient stays zero.
const MIN_DIVISOR: f64 = 1e-12;

/// All images within ε of the given ones in a norm, with pixels in [0, 1].
#[derive(Debug)]
pub enum Ball {
    /// ℓ∞. The bounds max(x − ε, 0) and min(x + ε, 1) are computed once, in the kind of the images. An image is in the ball
    /// if it is between them. So |x' − x| exceeds ε by at most the rounding of x ± ε (2⁻²⁵ in f32), and a second projection
    /// changes no bit.
    Linf {
        /// Lower bounds of the pixels.
        low: Tensor,
        /// Upper bounds of the pixels.
        high: Tensor,
    },
    /// ℓ2, over all pixels of an image.
    L2 {
        /// The images.
        centre: Tensor,
        /// ε.
        epsilon: f64,
    },
}

impl Ball {
    /// The ball around images with pixels in [0, 1].
    pub fn new(perturbations: PerturbationSet, images: &Tensor) -> Result<Self, TchError> {
        let PerturbationSet { norm, epsilon } = perturbations;
        no_grad(|| match norm {
            Norm::Linf => {
                let low = images.f_sub_scalar(epsilon)?.f_clamp_(0.0, 1.0)?;
                let high = images.f_add_scalar(epsilon)?.f_clamp_(0.0, 1.0)?;
                Ok(Self::Linf { low, high })
            }
            Norm::L2 => Ok(Self::L2 { centre: images.f_detach()?, epsilon }),
        })
    }

    /// Projects images into the ball. In ℓ∞ the result is the nearest image. In ℓ2 the perturbation is shortened to ε, then
    /// pixels are clipped, which shortens it further. NaN stays NaN: it must not become a valid image.
    pub fn project(&self, images: &Tensor) -> Result<Tensor, TchError> {
        no_grad(|| match self {
            Self::Linf { low, high } => images.f_maximum(low)?.f_minimum(high),
            Self::L2 { centre, epsilon } => {
                let perturbation = images.f_sub(centre)?;
                let mut factor = l2_norms(&perturbation)?
                    .f_clamp_min(MIN_DIVISOR)?
                    .f_reciprocal()?
                    .f_mul_scalar_(*epsilon)?;
                let shortened = perturbation.f_mul(&factor.f_clamp_max_(1.0)?)?;
                shortened.f_add(centre)?.f_clamp_(0.0, 1.0)
            }
        })
    }

    /// The ball around the images in these rows.
    pub fn select(&self, rows: &Tensor) -> Result<Self, TchError> {
        no_grad(|| match self {
            Self::Linf { low, high } => {
                Ok(Self::Linf { low: low.f_index_select(0, rows)?, high: high.f_index_select(0, rows)? })
            }
            Self::L2 { centre, epsilon } => {
                Ok(Self::L2 { centre: centre.f_index_select(0, rows)?, epsilon: *epsilon })
            }
        })
    }

    /// The norm of each image's perturbation, `[N, 1, 1, 1]`.
    pub fn perturbation_norms(norm: Norm, perturbations: &Tensor) -> Result<Tensor, TchError> {
        match norm {
            Norm::Linf => perturbations.f_abs()?.f_amax([1, 2, 3], true),
            Norm::L2 => l2_norms(perturbations),
        }
    }

    /// Scales each image's noise to norm 1.
    pub fn normalize(&self, noise: &Tensor) -> Result<Tensor, TchError> {
        no_grad(|| match self {
            Self::Linf { .. } => {
                let largest = noise.f_abs()?.f_amax([1, 2, 3], true)?.f_clamp_min_(MIN_DIVISOR)?;
                noise.f_div(&largest)
            }
            Self::L2 { .. } => noise.f_div(&l2_norms(noise)?.f_clamp_min_(MIN_DIVISOR)?),
        })
    }

    /// The direction of norm 1 in which the loss rises fastest, computed in place from its gradient: the sign in ℓ∞, the
    /// gradient divided by its norm in ℓ2.
    pub fn steepest_direction(&self, mut gradient: Tensor) -> Result<Tensor, TchError> {
        no_grad(|| match self {
            Self::Linf { .. } => gradient.f_sign_(),
            Self::L2 { .. } => {
                let length = l2_norms(&gradient)?.f_clamp_min_(MIN_DIVISOR)?;
                gradient.f_div_(&length)
            }
        })
    }
}

/// The ℓ2 norm of each image, `[N, 1, 1, 1]`.
fn l2_norms(images: &Tensor) -> Result<Tensor, TchError> {
    images.f_norm_scalaropt_dim(2.0, [1, 2, 3], true)
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
        fn projects_into_the_linf_ball_and_the_pixel_range(
            pairs in prop::collection::vec((any::<u8>(), -3.0_f32..3.0), 1..50),
            epsilon in 0.0_f64..=1.0,
        ) {
            let images: Vec<f32> = pairs.iter().map(|&(byte, _)| f32::from(byte) / 255.0).collect();
            let moved: Vec<f32> = pairs.iter().map(|&(_, value)| value).collect();
            let images = Tensor::from_slice(&images);
            let ball = Ball::new(PerturbationSet { norm: Norm::Linf, epsilon }, &images).unwrap();
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

    proptest! {
        #[test]
        fn projects_into_the_l2_ball_and_the_pixel_range(
            pairs in prop::collection::vec((any::<u8>(), -3.0_f64..3.0), 12..=12),
            epsilon in 0.01_f64..=5.0,
        ) {
            let images: Vec<f64> = pairs.iter().map(|&(byte, _)| f64::from(byte) / 255.0).collect();
            let moved: Vec<f64> = pairs.iter().map(|&(_, value)| value).collect();
            let tensor = |values: &[f64]| Tensor::from_slice(values).view([1, 3, 2, 2]);
            let ball = Ball::new(PerturbationSet { norm: Norm::L2, epsilon }, &tensor(&images)).unwrap();
            let projected = ball.project(&tensor(&moved)).unwrap();
            let found = values(&projected.flatten(0, -1));
            prop_assert!(found.iter().all(|value| (0.0..=1.0).contains(value)));
            let length = found.iter().zip(&images).map(|(y, x)| (y - x).powi(2)).sum::<f64>().sqrt();
            prop_assert!(length <= epsilon * (1.0 + 1e-12), "{length} {epsilon}");
            let inside = ball.project(&projected).unwrap();
            for (once, twice) in found.iter().zip(values(&inside.flatten(0, -1))) {
                prop_assert!((once - twice).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_zero_gradient_has_no_direction() {
        let images = Tensor::full([2, 1, 2, 2], 0.5, (Kind::Float, tch::Device::Cpu));
        for norm in [Norm::Linf, Norm::L2] {
            let ball = Ball::new(PerturbationSet { norm, epsilon: 0.1 }, &images).unwrap();
            assert_eq!(ball.steepest_direction(images.zeros_like()).unwrap(), images.zeros_like());
            assert_eq!(ball.project(&images).unwrap(), images);
        }
    }

    #[test]
    fn a_ball_of_radius_0_is_a_point() {
        let images = Tensor::from_slice(&[0.0_f32, 0.3, 1.0]);
        let ball = Ball::new(PerturbationSet { norm: Norm::Linf, epsilon: 0.0 }, &images).unwrap();
        assert_eq!(ball.project(&Tensor::from_slice(&[1.0_f32, -1.0, 0.5])).unwrap(), images);
    }

    #[test]
    fn projection_keeps_nan() {
        let ball =
            Ball::new(PerturbationSet { norm: Norm::Linf, epsilon: 0.1 }, &Tensor::from_slice(&[0.5_f32]))
                .unwrap();
        assert!(ball.project(&Tensor::from_slice(&[f32::NAN])).unwrap().double_value(&[0]).is_nan());
    }
}
