//! Auto-PGD (Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
//! attacks", arXiv 2003.01690, algorithm 1): projected gradient ascent with momentum. The step size halves when the loss
//! stops rising. A pure function.

use datjob_data::IGNORE_INDEX;
use tch::{Kind, TchError, Tensor, no_grad, with_grad};

use super::{Ball, PerturbationSet, per_image};
use crate::objective::class_logits;

/// α of the paper: the weight of the gradient step; the rest is momentum.
const ALPHA: f64 = 0.75;
/// ρ of the paper: the step size halves if the loss rose in a smaller share of the steps since the last checkpoint.
const RHO: f64 = 0.75;
/// The first checkpoint, the decrease from one interval to the next, and the shortest interval, as shares of all steps.
const CHECKPOINTS: (f64, f64, f64) = (0.22, 0.03, 0.06);
/// Keeps the DLR loss finite if logits are equal.
const MIN_DIVISOR: f64 = 1e-12;

/// Parameters of [`apgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApgdParameters {
    /// The allowed perturbations.
    pub perturbations: PerturbationSet,
    /// Number of steps; 100 in the paper.
    pub steps: u32,
}

/// The loss that the attack maximises, from the logits of each image.
#[derive(Debug)]
pub enum ApgdLoss {
    /// Cross-entropy.
    CrossEntropy,
    /// The targeted difference of logits ratio (DLR) towards these classes `[N]` (equation 7). It is invariant to scaling
    /// and shifting the logits. Requires at least 4 classes.
    TargetedDlr(Tensor),
}

impl ApgdLoss {
    fn of(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::CrossEntropy => {
                let none = tch::Reduction::None;
                logits.f_cross_entropy_loss(labels, None::<&Tensor>, none, IGNORE_INDEX, 0.0)
            }
            Self::TargetedDlr(target) => {
                let (sorted, _) = logits.f_topk(4, 1, true, true)?;
                let rank = |index| sorted.f_select(1, index);
                let middle = rank(2)?.f_add(&rank(3)?)?.f_mul_scalar(0.5)?;
                let spread = rank(0)?.f_sub(&middle)?.f_add_scalar(MIN_DIVISOR)?;
                class_logits(logits, target)?.f_sub(&class_logits(logits, labels)?)?.f_div(&spread)
            }
        }
    }
}

/// Generates an adversarial example for each image, `[N, C, H, W]` like `images`, detached. It is the last misclassified
/// point, or the point of the highest loss if no point is misclassified.
///
/// `start_noise` is the direction of the start and is scaled to ε. `logits` returns `[N, classes]`; the caller freezes the
/// model's weights.
pub fn apgd(
    logits: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    loss: &ApgdLoss,
    images: &Tensor,
    labels: &Tensor,
    parameters: &ApgdParameters,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let ApgdParameters { perturbations, steps } = *parameters;
    let epsilon = perturbations.epsilon;
    let ball = Ball::new(perturbations, images)?;
    let mut point =
        no_grad(|| ball.project(&ball.normalize(start_noise)?.f_mul_scalar_(epsilon)?.f_add_(images)?))?;
    let mut current = Evaluation::at(logits, loss, &point, labels)?;
    let mut best =
        BestPoint { point: point.copy(), gradient: current.gradient.copy(), loss: current.loss.copy() };
    let mut adversarial = point.copy();
    let mut ever_misclassified = current.correct.f_logical_not()?;
    let mut step_size =
        images.f_new_full([images.size()[0], 1, 1, 1], 2.0 * epsilon, (images.kind(), images.device()))?;
    let mut schedule = Checkpoints::new(steps);
    let mut increases = current.loss.f_zeros_like()?;
    let mut halved = current.loss.f_zeros_like()?.f_to_kind(Kind::Bool)?.f_logical_not()?;
    let mut best_loss_before = best.loss.copy();
    let mut previous = point.copy();
    for step in 0..steps {
        let next = no_grad(|| {
            let mut step_by = ball.steepest_direction(current.gradient.copy())?.f_mul_(&step_size)?;
            let along = ball.project(&step_by.f_add_(&point)?)?;
            // The first step has no momentum.
            let weight = if step == 0 { 1.0 } else { ALPHA };
            let momentum = point.f_sub(&previous)?.f_mul_scalar_(1.0 - weight)?;
            let moved = along.f_sub(&point)?.f_mul_scalar_(weight)?.f_add_(&point)?.f_add_(&momentum)?;
            ball.project(&moved)
        })?;
        previous = std::mem::replace(&mut point, next);
        let previous_loss = current.loss;
        current = Evaluation::at(logits, loss, &point, labels)?;
        no_grad(|| {
            let misclassified = current.correct.f_logical_not()?;
            adversarial = point.f_where_self(&per_image(&misclassified)?, &adversarial)?;
            ever_misclassified = ever_misclassified.f_logical_or(&misclassified)?;
            increases =
                increases.f_add(&current.loss.f_gt_tensor(&previous_loss)?.f_to_kind(increases.kind())?)?;
            best.update(&point, &current)?;
            if let Some(interval) = schedule.reached(step) {
                let oscillates = increases.f_le(RHO * f64::from(interval))?;
                let stuck =
                    best_loss_before.f_ge_tensor(&best.loss)?.f_logical_and(&halved.f_logical_not()?)?;
                halved = oscillates.f_logical_or(&stuck)?;
                best_loss_before = best.loss.copy();
                let again = per_image(&halved)?;
                step_size = step_size.f_mul_scalar(0.5)?.f_where_self(&again, &step_size)?;
                point = best.point.f_where_self(&again, &point)?;
                current.gradient = best.gradient.f_where_self(&again, &current.gradient)?;
                increases = increases.f_zeros_like()?;
            }
            Ok::<_, TchError>(())
        })?;
    }
    // If no point is misclassified, return the point of the highest loss.
    no_grad(|| adversarial.f_where_self(&per_image(&ever_misclassified)?, &best.point))
}

/// Loss, gradient and prediction at a point.
struct Evaluation {
    /// Gradient of each image's loss.
    gradient: Tensor,
    loss: Tensor,
    correct: Tensor,
}

impl Evaluation {
    fn at(
        logits: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
        loss: &ApgdLoss,
        point: &Tensor,
        labels: &Tensor,
    ) -> Result<Self, TchError> {
        with_grad(|| {
            let point = point.f_detach()?.f_set_requires_grad(true)?;
            let logits = logits(&point)?;
            let losses = loss.of(&logits, labels)?;
            let sum = losses.f_sum(losses.kind())?;
            let gradient = Tensor::f_run_backward(&[sum], &[&point], false, false)?.pop();
            let gradient = gradient
                .ok_or_else(|| TchError::Torch("the backward pass returned no gradient".to_owned()))?;
            let correct = logits.f_argmax(1, false)?.f_eq_tensor(labels)?;
            Ok(Self { gradient, loss: losses.f_detach()?, correct })
        })
    }
}

/// The point of the highest loss so far, for each image.
struct BestPoint {
    point: Tensor,
    gradient: Tensor,
    loss: Tensor,
}

impl BestPoint {
    fn update(&mut self, point: &Tensor, current: &Evaluation) -> Result<(), TchError> {
        let better = current.loss.f_gt_tensor(&self.loss)?;
        let mask = per_image(&better)?;
        self.point = point.f_where_self(&mask, &self.point)?;
        self.gradient = current.gradient.f_where_self(&mask, &self.gradient)?;
        self.loss = current.loss.f_where_self(&better, &self.loss)?;
        Ok(())
    }
}

/// The steps at which step sizes may halve: after 22 % of the steps, then in intervals that shorten by 3 % down to 6 %.
struct Checkpoints {
    interval: u32,
    decrease: u32,
    shortest: u32,
    passed: u32,
}

impl Checkpoints {
    fn new(steps: u32) -> Self {
        let share = |share: f64| ((share * f64::from(steps)) as u32).max(1);
        let (first, decrease, shortest) = CHECKPOINTS;
        Self { interval: share(first), decrease: share(decrease), shortest: share(shortest), passed: 0 }
    }

    /// The length of the interval that ends with this step (counted from 0), if one does.
    fn reached(&mut self, step: u32) -> Option<u32> {
        if step + 1 - self.passed < self.interval {
            return None;
        }
        let length = self.interval;
        self.passed = step + 1;
        self.interval = length.saturating_sub(self.decrease).max(self.shortest);
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Norm;

    use super::*;

    #[test]
    fn checkpoints_match_the_paper() {
        let mut schedule = Checkpoints::new(100);
        let reached: Vec<(u32, u32)> =
            (0..100).filter_map(|step| schedule.reached(step).map(|length| (step + 1, length))).collect();
        let expected = [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10), (87, 7), (93, 6), (99, 6)];
        assert_eq!(reached, expected);
        let mut long = Checkpoints::new(1000);
        let reached: Vec<u32> = (0..700).filter_map(|step| long.reached(step)).collect();
        assert_eq!(reached, [220, 190, 160, 130]);
        let mut short = Checkpoints::new(1);
        assert_eq!(short.reached(0), Some(1));
    }

    /// The first point is misclassified; the step overshoots to a point that is not.
    #[test]
    fn returns_a_misclassified_point_rather_than_the_last_one() {
        let logits = |point: &Tensor| {
            let distance = point.f_select(3, 1)?.f_add_scalar(-0.6)?.f_abs()?;
            let other = distance.f_mul_scalar(-10.0)?.f_add_scalar(1.0)?.f_reshape([1, 1])?;
            Tensor::f_cat(&[other.f_zeros_like()?, other], 1)
        };
        let row = |values: [f32; 2]| Tensor::from_slice(&values).reshape([1, 1, 1, 2]);
        let (images, noise) = (row([0.5, 0.5]), row([0.3, 0.11]));
        let perturbations = PerturbationSet { norm: Norm::Linf, epsilon: 0.3 };
        let parameters = ApgdParameters { perturbations, steps: 1 };
        let label = Tensor::from_slice(&[0_i64]);
        let found = apgd(&logits, &ApgdLoss::CrossEntropy, &images, &label, &parameters, &noise).unwrap();
        let pixels = Vec::<f32>::try_from(found.reshape([2])).unwrap();
        assert!((pixels[0] - 0.8).abs() < 1e-6 && (pixels[1] - 0.61).abs() < 1e-6, "{pixels:?}");
    }
}
