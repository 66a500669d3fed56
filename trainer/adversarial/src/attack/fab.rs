//! FAB towards a class (Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
//! arXiv 1907.02044): steps to the linearised decision boundary, drawn to the image, that look for the example nearest to
//! it. Constants and the form with one class are AutoAttack's (arXiv 2003.01690).

use datjob_api::training::Norm;
use tch::{Kind, TchError, Tensor, no_grad};

use super::{Ball, PerturbationSet, gradient_of, image_mask};
use crate::objective::of_class;

/// How far a step goes beyond the boundary.
const OVERSHOOT: f64 = 1.05;
/// The largest share of a step that is drawn to the image.
const DRAWN: f64 = 0.1;
/// What is left of the perturbation after an adversarial example is found, so that the search goes on nearer to the image.
const BACK: f64 = 0.9;
/// What keeps divisions by the length of a gradient of zeros at zero.
const TINY: f64 = 1e-12;
/// A movement longer than any image.
const BEYOND: f64 = 1e30;

/// The attack's budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FabParameters {
    /// The allowed perturbations; the attack minimises their norm.
    pub perturbations: PerturbationSet,
    /// Number of steps; 100 in AutoAttack.
    pub steps: u32,
}

/// For each image the nearest adversarial example that was found, where it lies in the ball, else the image itself:
/// `[N, C, H, W]` like `images`, in no graph.
///
/// The boundary is that between the label and `target` (classes `[N]`); an example counts whatever other class it has.
/// Nothing is random. `logits` of images `[N, classes]`; the caller freezes the model's weights.
pub fn fab_t(
    logits: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    (images, labels): (&Tensor, &Tensor),
    target: &Tensor,
    parameters: &FabParameters,
) -> Result<Tensor, TchError> {
    let FabParameters { perturbations: PerturbationSet { norm, epsilon }, steps } = *parameters;
    let mut at = images.copy();
    let mut nearest = images.copy();
    let mut shortest =
        images.f_new_full([images.size()[0], 1, 1, 1], f64::INFINITY, (images.kind(), images.device()))?;
    for _ in 0..steps {
        let (difference, gradient) = gradient_of(&at, |x| {
            let logits = logits(x)?;
            of_class(&logits, target)?.f_sub(&of_class(&logits, labels)?)
        })?;
        no_grad(|| {
            // The boundary of the linear approximation: difference + gradient · (z − at) = 0.
            let lacks = image_mask(&difference)?.f_neg()?;
            let lead = gradient.f_mul(&at.f_sub(images)?)?.f_flatten(1, -1)?;
            let lead = image_mask(&lead.f_sum_dim_intlist(1, false, None::<Kind>)?)?;
            let from_here = to_plane(norm, &at, &gradient, &lacks)?;
            let from_image = to_plane(norm, images, &gradient, &lacks.f_add(&lead)?)?;
            let (here, image) = (length(norm, &from_here)?, length(norm, &from_image)?);
            let drawn = here.f_div(&here.f_add(&image)?)?.f_clamp_(0.0, DRAWN)?;
            let moved = at.f_add(&from_here.f_mul_scalar(OVERSHOOT)?)?;
            let anchored = images.f_add(&from_image.f_mul_scalar(OVERSHOOT)?)?;
            at = moved.f_lerp_tensor(&anchored, &drawn)?.f_clamp_(0.0, 1.0)?;

            let fooled = image_mask(&logits(&at)?.f_argmax(1, false)?.f_ne_tensor(labels)?)?;
            let perturbation = at.f_sub(images)?;
            let long = Ball::length(norm, &perturbation)?;
            let nearer = fooled.f_logical_and(&long.f_lt_tensor(&shortest)?)?;
            nearest = at.f_where_self(&nearer, &nearest)?;
            shortest = long.f_where_self(&nearer, &shortest)?;
            at = images.f_add(&perturbation.f_mul_scalar(BACK)?)?.f_where_self(&fooled, &at)?;
            Ok::<_, TchError>(())
        })?;
    }
    no_grad(|| nearest.f_where_self(&shortest.f_le(epsilon)?, images))
}

fn length(norm: Norm, movement: &Tensor) -> Result<Tensor, TchError> {
    const SHORTEST: f64 = 1e-8;
    Ball::length(norm, movement)?.f_clamp_min(SHORTEST)
}

/// The shortest movement of each point, in the norm and within pixels in [0, 1], that raises `normal · point` by `lacks`
/// (`[N, 1, 1, 1]`, of either sign); where the pixels' range does not reach so far, to the end of the range.
///
/// All coordinates move at once, at speed 1 in ℓ∞ and |normal| in ℓ2, until each arrives at the end of its range or the
/// plane is reached: the time of that is looked up among the sorted times of arrival.
fn to_plane(norm: Norm, point: &Tensor, normal: &Tensor, lacks: &Tensor) -> Result<Tensor, TchError> {
    let flat = |x: &Tensor| x.f_flatten(1, -1);
    let (point, direction) = (flat(point)?, flat(&normal.f_mul(&lacks.f_sign()?)?)?.f_sign()?);
    let (weight, lacks) = (flat(normal)?.f_abs()?, flat(lacks)?.f_abs()?);
    let room = (-&point).f_add_scalar(1.0)?.f_where_self(&direction.f_gt(0.0)?, &point)?;
    let speed = match norm {
        Norm::Linf => weight.f_ones_like()?,
        Norm::L2 => weight.copy(),
    };
    let (arrival, order) = room.f_div(&speed.f_clamp_min(TINY)?)?.f_sort(1, false)?;
    let sorted = |x: &Tensor| x.f_gather(1, &order, false);
    let full = sorted(&weight.f_mul(&room)?)?;
    let rate = sorted(&weight.f_mul(&speed)?)?;
    let kind = None::<Kind>;
    // What those that arrived before have brought, and how fast it rises by those that still move.
    let brought = full.f_cumsum(1, kind)?.f_sub(&full)?;
    let rising = rate.f_flip([1])?.f_cumsum(1, kind)?.f_flip([1])?;
    let at_arrival = brought.f_add(&arrival.f_mul(&rising)?)?;
    let arrived = at_arrival.f_lt_tensor(&lacks)?.f_sum_dim_intlist(1, true, Kind::Int64)?;
    let last = point.size()[1] - 1;
    let index = arrived.f_clamp_max(last)?;
    let missing = lacks.f_sub(&brought.f_gather(1, &index, false)?)?;
    let time = missing.f_div(&rising.f_gather(1, &index, false)?.f_clamp_min(TINY)?)?;
    let time = time.f_masked_fill(&arrived.f_gt(last)?, BEYOND)?;
    let moved = speed.f_mul(&time)?.f_minimum(&room)?.f_mul(&direction)?;
    moved.f_view_as(normal)
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
        /// The plane is reached where it can be, pixels stay in range, and no shorter movement reaches it: shrunk by a
        /// thousandth, the same ball holds no point beyond the plane.
        #[test]
        fn the_plane_is_reached_by_the_shortest_way(
            coordinates in prop::collection::vec((0.0_f64..=1.0, -2.0_f64..2.0), 1..20),
            lacks in -5.0_f64..5.0,
        ) {
            let point: Vec<f64> = coordinates.iter().map(|c| c.0).collect();
            let normal: Vec<f64> = coordinates.iter().map(|c| c.1).collect();
            let room = |p: f64, n: f64| if n * lacks > 0.0 { 1.0 - p } else { p };
            let most: f64 = coordinates.iter().map(|&(p, n)| n.abs() * room(p, n)).sum();
            for norm in [Norm::Linf, Norm::L2] {
                let moved = to_plane(norm, &tensor(&point), &tensor(&normal), &tensor(&[lacks])).unwrap();
                let moved = values(&moved);
                let gain: f64 = moved.iter().zip(&normal).map(|(m, n)| m * n).sum();
                prop_assert!((gain - lacks.signum() * lacks.abs().min(most)).abs() < 1e-9);
                for (m, p) in moved.iter().zip(&point) {
                    prop_assert!((-1e-12..=1.0 + 1e-12).contains(&(p + m)));
                }
                if norm == Norm::Linf {
                    let radius = moved.iter().fold(0.0_f64, |most, m| most.max(m.abs())) * 0.999;
                    let within = |(&p, &n): (&f64, &f64)| n.abs() * room(p, n).min(radius);
                    let best: f64 = point.iter().zip(&normal).map(within).sum();
                    prop_assert!(radius == 0.0 || best < lacks.abs());
                }
            }
        }
    }

    #[test]
    fn without_a_gradient_nothing_moves() {
        let (point, zero) = (tensor(&[0.2, 0.7]), tensor(&[0.0, 0.0]));
        for norm in [Norm::Linf, Norm::L2] {
            assert_eq!(values(&to_plane(norm, &point, &zero, &tensor(&[0.5])).unwrap()), [0.0, 0.0]);
        }
    }
}
