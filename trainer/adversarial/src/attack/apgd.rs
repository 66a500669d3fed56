//! Auto-PGD (Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
//! attacks", arXiv 2003.01690, algorithm 1): projected gradient ascent with momentum whose steps halve where the loss has
//! stopped to rise.

use tch::{Kind, TchError, Tensor, no_grad, with_grad};

use super::{Ball, PerturbationSet, image_mask};
use crate::objective::of_class;

/// Share of a step that goes along the gradient; the rest repeats the last movement.
const ALONG: f64 = 0.75;
/// Share of the steps since the last checkpoint in which the loss has to rise for a step size to stay.
const RISING: f64 = 0.75;
/// The first checkpoint, by how much the next interval is shorter, and the shortest interval, as shares of all steps.
const CHECKPOINTS: (f64, f64, f64) = (0.22, 0.03, 0.06);
/// What keeps the DLR loss finite where logits are equal.
const TINY: f64 = 1e-12;

/// The attack's budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApgdParameters {
    /// The allowed perturbations.
    pub perturbations: PerturbationSet,
    /// Number of steps; 100 in the paper.
    pub steps: u32,
}

/// What the attack makes large, for each image from its logits.
#[derive(Debug)]
pub enum ApgdLoss {
    /// Cross-entropy.
    CrossEntropy,
    /// The targeted difference of logits ratio, towards these classes `[N]` (equation 7): it does not change where logits
    /// are multiplied or shifted. At least 4 classes.
    TargetedDlr(Tensor),
}

impl ApgdLoss {
    fn of(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::CrossEntropy => {
                let none = tch::Reduction::None;
                logits.f_cross_entropy_loss(labels, None::<&Tensor>, none, -100, 0.0)
            }
            Self::TargetedDlr(target) => {
                let (sorted, _) = logits.f_topk(4, 1, true, true)?;
                let rank = |index| sorted.f_select(1, index);
                let middle = rank(2)?.f_add(&rank(3)?)?.f_mul_scalar(0.5)?;
                let spread = rank(0)?.f_sub(&middle)?.f_add_scalar(TINY)?;
                of_class(logits, target)?.f_sub(&of_class(logits, labels)?)?.f_div(&spread)
            }
        }
    }
}

/// An adversarial example for each image, `[N, C, H, W]` like `images`, in no graph: the last point on the way that is
/// classified wrongly, or the point of the highest loss where none is.
///
/// `start_noise` gives the direction of the start: scaled to the border of the ball. `logits` of images `[N, classes]`; the
/// caller freezes the model's weights.
pub fn apgd(
    logits: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    loss: &ApgdLoss,
    (images, labels): (&Tensor, &Tensor),
    parameters: &ApgdParameters,
    start_noise: &Tensor,
) -> Result<Tensor, TchError> {
    let ApgdParameters { perturbations, steps } = *parameters;
    let epsilon = perturbations.epsilon;
    let ball = Ball::new(perturbations, images)?;
    let mut at =
        no_grad(|| ball.project(&ball.border(start_noise)?.f_mul_scalar_(epsilon)?.f_add_(images)?))?;
    let mut look = Look::at(logits, loss, &at, labels)?;
    let mut best = Best { point: at.copy(), gradient: look.gradient.copy(), loss: look.loss.copy() };
    let mut found = at.copy();
    let mut ever_fooled = look.correct.f_logical_not()?;
    let mut step_size =
        images.f_new_full([images.size()[0], 1, 1, 1], 2.0 * epsilon, (images.kind(), images.device()))?;
    let mut schedule = Checkpoints::new(steps);
    let mut rises = look.loss.f_zeros_like()?;
    let mut halved = look.loss.f_zeros_like()?.f_to_kind(Kind::Bool)?.f_logical_not()?;
    let mut best_before = best.loss.copy();
    let mut before = at.copy();
    for step in 0..steps {
        let next = no_grad(|| {
            let mut move_by = ball.steepest(look.gradient.copy())?.f_mul_(&step_size)?;
            let along = ball.project(&move_by.f_add_(&at)?)?;
            // The first step has no movement to repeat.
            let share = if step == 0 { 1.0 } else { ALONG };
            let momentum = at.f_sub(&before)?.f_mul_scalar_(1.0 - share)?;
            let moved = along.f_sub(&at)?.f_mul_scalar_(share)?.f_add_(&at)?.f_add_(&momentum)?;
            ball.project(&moved)
        })?;
        before = std::mem::replace(&mut at, next);
        let previous_loss = look.loss;
        look = Look::at(logits, loss, &at, labels)?;
        no_grad(|| {
            let fooled = look.correct.f_logical_not()?;
            found = at.f_where_self(&image_mask(&fooled)?, &found)?;
            ever_fooled = ever_fooled.f_logical_or(&fooled)?;
            rises = rises.f_add(&look.loss.f_gt_tensor(&previous_loss)?.f_to_kind(rises.kind())?)?;
            best.take(&at, &look)?;
            if let Some(interval) = schedule.reached(step) {
                let oscillates = rises.f_le(RISING * f64::from(interval))?;
                let stuck = best_before.f_ge_tensor(&best.loss)?.f_logical_and(&halved.f_logical_not()?)?;
                halved = oscillates.f_logical_or(&stuck)?;
                best_before = best.loss.copy();
                let again = image_mask(&halved)?;
                step_size = step_size.f_mul_scalar(0.5)?.f_where_self(&again, &step_size)?;
                at = best.point.f_where_self(&again, &at)?;
                look.gradient = best.gradient.f_where_self(&again, &look.gradient)?;
                rises = rises.f_zeros_like()?;
            }
            Ok::<_, TchError>(())
        })?;
    }
    // Where nothing fooled the network, the best point is what others go on from.
    no_grad(|| found.f_where_self(&image_mask(&ever_fooled)?, &best.point))
}

/// The network's answer at a point.
struct Look {
    /// Of the loss, for each image.
    gradient: Tensor,
    loss: Tensor,
    correct: Tensor,
}

impl Look {
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
struct Best {
    point: Tensor,
    gradient: Tensor,
    loss: Tensor,
}

impl Best {
    fn take(&mut self, point: &Tensor, look: &Look) -> Result<(), TchError> {
        let better = look.loss.f_gt_tensor(&self.loss)?;
        let mask = image_mask(&better)?;
        self.point = point.f_where_self(&mask, &self.point)?;
        self.gradient = look.gradient.f_where_self(&mask, &self.gradient)?;
        self.loss = look.loss.f_where_self(&better, &self.loss)?;
        Ok(())
    }
}

/// When step sizes are looked at: after 22 % of the steps, then in intervals that shorten by 3 % down to 6 %.
struct Checkpoints {
    interval: u32,
    shorter: u32,
    shortest: u32,
    passed: u32,
}

impl Checkpoints {
    fn new(steps: u32) -> Self {
        let share = |share: f64| ((share * f64::from(steps)) as u32).max(1);
        let (first, shorter, shortest) = CHECKPOINTS;
        Self { interval: share(first), shorter: share(shorter), shortest: share(shortest), passed: 0 }
    }

    /// The length of the interval that ends with this step (counted from 0), where one does.
    fn reached(&mut self, step: u32) -> Option<u32> {
        if step + 1 - self.passed < self.interval {
            return None;
        }
        let ended = self.interval;
        self.passed = step + 1;
        self.interval = ended.saturating_sub(self.shorter).max(self.shortest);
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_those_of_the_paper() {
        let mut schedule = Checkpoints::new(100);
        let reached: Vec<(u32, u32)> =
            (0..100).filter_map(|step| schedule.reached(step).map(|length| (step + 1, length))).collect();
        let expected = [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10), (87, 7), (93, 6), (99, 6)];
        assert_eq!(reached, expected);
        let mut short = Checkpoints::new(1);
        assert_eq!(short.reached(0), Some(1));
    }
}
