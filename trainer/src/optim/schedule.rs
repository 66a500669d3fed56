use datjob_api::training::{Decay, Schedule};

/// The learning rate of a step (counted from 0, over all epochs), where `base` is the highest.
///
/// A schedule is a function of time; a step takes its value at the step's middle, so that neither the first nor the
/// last step of a cycle is wasted on a rate of 0.
/// - `cyclic`: linearly from 0 up to `base` at the share `peak` of all steps, and linearly down to 0.
/// - `piecewise`: `base`, multiplied by `factor` after each of the epochs in `at`, and rising linearly from 0 during
///   the warm-up.
pub fn learning_rate(schedule: &Schedule, base: f64, step: u64, steps_per_epoch: u64) -> f64 {
    let time = step as f64 + 0.5;
    let steps = |epochs: u32| f64::from(epochs) * steps_per_epoch as f64;
    match schedule.decay() {
        Decay::Cyclic(cyclic) => {
            let end = steps(schedule.epochs);
            let peak = cyclic.peak * end;
            let share = if time < peak { time / peak } else { (end - time) / (end - peak) };
            base * share.clamp(0.0, 1.0)
        }
        Decay::Piecewise(piecewise) => {
            let warm_up = steps(schedule.warmup_epochs);
            let risen = if time < warm_up { time / warm_up } else { 1.0 };
            let passed = piecewise.at.iter().filter(|&&epoch| time > steps(epoch)).count();
            base * risen * piecewise.factor.powi(passed as i32)
        }
    }
}
