//! Targeted FAB (Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
//! arXiv 1907.02044). It steps to the linearised decision boundary, biased towards the image, and searches the adversarial
//! example of minimal norm. Constants and the targeted form are AutoAttack's (arXiv 2003.01690). A pure function.

use datjob_api::training::Norm;
use tch::{Kind, TchError, Tensor, no_grad};

use super::{Ball, PerturbationSet, losses_and_gradient, per_image};
use crate::objective::class_logits;

/// η of the paper: overshoot of a step over the boundary.
const OVERSHOOT: f64 = 1.05;
/// α_max of the paper: the maximum bias of a step towards the image.
const ALPHA_MAX: f64 = 0.1;
/// β of the paper: factor of the perturbation after an adversarial example is found, a backward step to the image.
const BACKWARD: f64 = 0.9;
/// Lower bound of divisors: a zero gradient moves nothing.
const MIN_DIVISOR: f64 = 1e-12;
/// A time after which every coordinate is at the end of its range.
const LAST_TIME: f64 = 1e30;

/// Parameters of [`fab_t`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FabParameters {
    /// The allowed perturbations; the attack minimises their norm.
    pub perturbations: PerturbationSet,
    /// Number of steps; 100 in AutoAttack.
    pub steps: u32,
}

/// Generates for each image the nearest adversarial example that it finds, or returns the image if none is allowed:
/// `[N, C, H, W]` like `images`, detached.
///
/// It approaches the boundary between the label and `target` (classes `[N]`); an example of any wrong class counts. The
/// attack is deterministic. `logits` returns `[N, classes]`; the caller freezes the model's weights.
pub fn fab_t(
    logits: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    labels: &Tensor,
    target: &Tensor,
    parameters: &FabParameters,
) -> Result<Tensor, TchError> {
    let FabParameters { perturbations: PerturbationSet { norm, epsilon }, steps } = *parameters;
    let mut point = images.copy();
    let mut nearest = images.copy();
    let mut min_norms =
        images.f_new_full([images.size()[0], 1, 1, 1], f64::INFINITY, (images.kind(), images.device()))?;
    for _ in 0..steps {
        let (difference, gradient) = losses_and_gradient(&point, |x| {
            let logits = logits(x)?;
            class_logits(&logits, target)?.f_sub(&class_logits(&logits, labels)?)
        })?;
        no_grad(|| {
            // The boundary of the linear approximation: difference + gradient · (z − point) = 0.
            let gap = per_image(&difference)?.f_neg()?;
            let projection_gap = gradient.f_mul(&point.f_sub(images)?)?.f_flatten(1, -1)?;
            let projection_gap = per_image(&projection_gap.f_sum_dim_intlist(1, false, None::<Kind>)?)?;
            let step_from_point = step_to_hyperplane(norm, &point, &gradient, &gap)?;
            let step_from_image = step_to_hyperplane(norm, images, &gradient, &gap.f_add(&projection_gap)?)?;
            let (point_norm, image_norm) =
                (norm_of_step(norm, &step_from_point)?, norm_of_step(norm, &step_from_image)?);
            let alpha = point_norm.f_div(&point_norm.f_add(&image_norm)?)?.f_clamp_(0.0, ALPHA_MAX)?;
            let step = point.f_add(&step_from_point.f_mul_scalar(OVERSHOOT)?)?;
            let anchored = images.f_add(&step_from_image.f_mul_scalar(OVERSHOOT)?)?;
            point = step.f_lerp_tensor(&anchored, &alpha)?.f_clamp_(0.0, 1.0)?;

            let misclassified = per_image(&logits(&point)?.f_argmax(1, false)?.f_ne_tensor(labels)?)?;
            let perturbation = point.f_sub(images)?;
            let norms = Ball::perturbation_norms(norm, &perturbation)?;
            let nearer = misclassified.f_logical_and(&norms.f_lt_tensor(&min_norms)?)?;
            nearest = point.f_where_self(&nearer, &nearest)?;
            min_norms = norms.f_where_self(&nearer, &min_norms)?;
            point =
                images.f_add(&perturbation.f_mul_scalar(BACKWARD)?)?.f_where_self(&misclassified, &point)?;
            Ok::<_, TchError>(())
        })?;
    }
    no_grad(|| nearest.f_where_self(&min_norms.f_le(epsilon)?, images))
}

fn norm_of_step(norm: Norm, movement: &Tensor) -> Result<Tensor, TchError> {
    const MIN_NORM: f64 = 1e-8;
    Ball::perturbation_norms(norm, movement)?.f_clamp_min(MIN_NORM)
}

/// The shortest step from each point, in the norm and within pixels in [0, 1], that changes `normal · point` by `gap`
/// (`[N, 1, 1, 1]`, of either sign). If the pixel range is too small for that, the step ends at the end of the range.
///
/// All coordinates move at once, at speed 1 in ℓ∞ and |normal| in ℓ2, until they reach the end of their range or the
/// hyperplane. The sorted arrival times of the coordinates give the time at which the hyperplane is reached.
fn step_to_hyperplane(norm: Norm, point: &Tensor, normal: &Tensor, gap: &Tensor) -> Result<Tensor, TchError> {
    let flat = |x: &Tensor| x.f_flatten(1, -1);
    let (point, direction) = (flat(point)?, flat(&normal.f_mul(&gap.f_sign()?)?)?.f_sign()?);
    let (weight, gap) = (flat(normal)?.f_abs()?, flat(gap)?.f_abs()?);
    let range = (-&point).f_add_scalar(1.0)?.f_where_self(&direction.f_gt(0.0)?, &point)?;
    let speed = match norm {
        Norm::Linf => weight.f_ones_like()?,
        Norm::L2 => weight.copy(),
    };
    let (arrival, order) = range.f_div(&speed.f_clamp_min(MIN_DIVISOR)?)?.f_sort(1, false)?;
    let sorted = |x: &Tensor| x.f_gather(1, &order, false);
    let full = sorted(&weight.f_mul(&range)?)?;
    let rate = sorted(&weight.f_mul(&speed)?)?;
    let kind = None::<Kind>;
    // Contribution of the coordinates that arrived earlier, and the rate of those that still move.
    let gained = full.f_cumsum(1, kind)?.f_sub(&full)?;
    let rising = rate.f_flip([1])?.f_cumsum(1, kind)?.f_flip([1])?;
    let at_arrival = gained.f_add(&arrival.f_mul(&rising)?)?;
    let arrived = at_arrival.f_lt_tensor(&gap)?.f_sum_dim_intlist(1, true, Kind::Int64)?;
    let last = point.size()[1] - 1;
    let index = arrived.f_clamp_max(last)?;
    let missing = gap.f_sub(&gained.f_gather(1, &index, false)?)?;
    let time = missing.f_div(&rising.f_gather(1, &index, false)?.f_clamp_min(MIN_DIVISOR)?)?;
    let time = time.f_masked_fill(&arrived.f_gt(last)?, LAST_TIME)?;
    let step = speed.f_mul(&time)?.f_minimum(&range)?.f_mul(&direction)?;
    step.f_view_as(normal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([1, 1, 1, -1])
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    proptest! {
        /// The step reaches the hyperplane if the pixel range allows it, and pixels stay in range. No shorter step reaches
        /// it: a ball that is smaller by a thousandth does not touch the hyperplane.
        #[test]
        fn the_step_to_the_hyperplane_is_the_shortest(
            coordinates in prop::collection::vec((0.0_f64..=1.0, -2.0_f64..2.0), 1..20),
            gap in -5.0_f64..5.0,
        ) {
            let point: Vec<f64> = coordinates.iter().map(|c| c.0).collect();
            let normal: Vec<f64> = coordinates.iter().map(|c| c.1).collect();
            let range = |p: f64, n: f64| if n * gap > 0.0 { 1.0 - p } else { p };
            let max_gain: f64 = coordinates.iter().map(|&(p, n)| n.abs() * range(p, n)).sum();
            for norm in [Norm::Linf, Norm::L2] {
                let step = step_to_hyperplane(norm, &tensor(&point), &tensor(&normal), &tensor(&[gap])).unwrap();
                let step = values(&step);
                let gain: f64 = step.iter().zip(&normal).map(|(m, n)| m * n).sum();
                prop_assert!((gain - gap.signum() * gap.abs().min(max_gain)).abs() < 1e-9);
                for (m, p) in step.iter().zip(&point) {
                    prop_assert!((-1e-12..=1.0 + 1e-12).contains(&(p + m)));
                }
                if norm == Norm::Linf {
                    let radius = step.iter().fold(0.0_f64, |max, m| max.max(m.abs())) * 0.999;
                    let within = |(&p, &n): (&f64, &f64)| n.abs() * range(p, n).min(radius);
                    let best: f64 = point.iter().zip(&normal).map(within).sum();
                    prop_assert!(radius == 0.0 || best < gap.abs());
                }
            }
        }
    }

    /// Two classes, separated where the pixel is 0.6.
    #[test]
    fn returns_the_nearest_misclassified_image_within_epsilon() {
        let logits = |x: &Tensor| {
            let side = x.f_flatten(1, -1)?.f_sub_scalar(0.6)?;
            Tensor::f_cat(&[side.f_zeros_like()?, side], 1)
        };
        let (images, label, target) =
            (tensor(&[0.5]), Tensor::from_slice(&[0_i64]), Tensor::from_slice(&[1_i64]));
        for norm in [Norm::Linf, Norm::L2] {
            let attack = |epsilon| {
                let perturbations = PerturbationSet { norm, epsilon };
                let parameters = FabParameters { perturbations, steps: 5 };
                values(&fab_t(&logits, &images, &label, &target, &parameters).unwrap())
            };
            let found = attack(0.2);
            assert!(found[0] > 0.6001 && found[0] < 0.601, "{norm:?}: {found:?}");
            assert_eq!(attack(0.05), [0.5], "{norm:?}: no misclassified image is within 0.05");
        }
    }

    #[test]
    fn a_zero_gradient_moves_nothing() {
        let (point, zero) = (tensor(&[0.2, 0.7]), tensor(&[0.0, 0.0]));
        for norm in [Norm::Linf, Norm::L2] {
            assert_eq!(
                values(&step_to_hyperplane(norm, &point, &zero, &tensor(&[0.5])).unwrap()),
                [0.0, 0.0]
            );
        }
    }

    /// The boundary lies below the image.
    #[test]
    fn a_misclassified_image_moves_towards_the_boundary() {
        let logits = |x: &Tensor| {
            let side = x.f_flatten(1, -1)?.f_sub_scalar(0.6)?;
            Tensor::f_cat(&[side.f_zeros_like()?, side], 1)
        };
        let (label, target) = (Tensor::from_slice(&[0_i64]), Tensor::from_slice(&[1_i64]));
        let perturbations = PerturbationSet { norm: Norm::Linf, epsilon: 0.3 };
        let parameters = FabParameters { perturbations, steps: 5 };
        let found = fab_t(&logits, &tensor(&[0.7]), &label, &target, &parameters).unwrap();
        assert!(values(&found)[0] <= 0.7, "{found:?}");
    }
}
