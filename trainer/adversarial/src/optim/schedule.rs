//! Learning rate schedules. Pure.

use datjob_api::training::{Decay, Schedule};

/// The learning rate of a step, counted from 0 over all epochs. `base` is the highest rate.
///
/// A schedule is a function of time. It is evaluated in the middle of a step, so that neither the first nor the last step
/// of a cycle has a rate of 0.
/// - `cyclic`: linearly from 0 up to `base` at the share `peak` of all steps, and linearly down to 0.
/// - `piecewise`: `base`, multiplied by `factor` after each of the epochs in `at`, and rising linearly from 0 during
///   the warm-up.
/// - `cosine`: from `base` down to `floor` · `base` along half a cosine, after a linear warm-up.
pub fn learning_rate(schedule: &Schedule, base: f64, step: u64, steps_per_epoch: u64) -> f64 {
    let time = step as f64 + 0.5;
    let steps = |epochs: u32| f64::from(epochs) * steps_per_epoch as f64;
    let warm_up = steps(schedule.warmup_epochs);
    let warm_up_factor = if time < warm_up { time / warm_up } else { 1.0 };
    match schedule.decay() {
        Decay::Cyclic(cyclic) => {
            let end = steps(schedule.epochs);
            let peak = cyclic.peak * end;
            let share = if time < peak { time / peak } else { (end - time) / (end - peak) };
            base * share.max(0.0)
        }
        Decay::Cosine(cosine) => {
            let (start, end) = (steps(schedule.warmup_epochs), steps(schedule.epochs));
            let share = ((time - start) / (end - start).max(1.0)).clamp(0.0, 1.0);
            let wave = f64::midpoint(1.0, (std::f64::consts::PI * share).cos());
            base * warm_up_factor * (cosine.floor + (1.0 - cosine.floor) * wave)
        }
        Decay::Piecewise(piecewise) => {
            let passed = piecewise.at.iter().filter(|&&epoch| time > steps(epoch)).count();
            base * warm_up_factor * piecewise.factor.powi(passed as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(json: serde_json::Value) -> Schedule {
        serde_json::from_value(json).unwrap()
    }

    fn rates(schedule: &Schedule, base: f64, steps_per_epoch: u64) -> Vec<f64> {
        let steps = u64::from(schedule.epochs) * steps_per_epoch;
        (0..steps).map(|step| learning_rate(schedule, base, step, steps_per_epoch)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(found.len() == expected.len() && close, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn cyclic_rises_to_its_peak_and_falls_to_0() {
        for (peak, expected) in [
            (0.4, [0.125, 0.375, 0.625, 0.875, 11.0 / 12.0, 0.75, 7.0 / 12.0, 5.0 / 12.0, 0.25, 1.0 / 12.0]),
            (0.0, [0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.05]),
            (1.0, [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95]),
        ] {
            let cyclic = schedule(serde_json::json!({"epochs": 2, "decay": {"cyclic": {"peak": peak}}}));
            assert_close(&rates(&cyclic, 1.0, 5), &expected);
        }
    }

    #[test]
    fn the_default_is_one_cycle() {
        let absent = schedule(serde_json::json!({"epochs": 2}));
        let cyclic = schedule(serde_json::json!({"epochs": 2, "decay": {"cyclic": {"peak": 0.4}}}));
        assert_close(&rates(&absent, 0.3, 7), &rates(&cyclic, 0.3, 7));
    }

    #[test]
    fn piecewise_multiplies_by_its_factor_after_its_epochs() {
        let piecewise = schedule(serde_json::json!(
            {"epochs": 4, "decay": {"piecewise": {"at": [3, 1], "factor": 0.5}}}
        ));
        assert_close(&rates(&piecewise, 0.8, 2), &[0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2]);
    }

    #[test]
    fn piecewise_without_epochs_is_constant() {
        let constant = schedule(serde_json::json!({"epochs": 2, "decay": {"piecewise": {"at": []}}}));
        assert_close(&rates(&constant, 0.1, 2), &[0.1; 4]);
    }

    #[test]
    fn warm_up_rises_linearly() {
        let piecewise = schedule(serde_json::json!(
            {"epochs": 3, "warmupEpochs": 2, "decay": {"piecewise": {"at": [2], "factor": 0.1}}}
        ));
        assert_close(&rates(&piecewise, 1.0, 2), &[0.125, 0.375, 0.625, 0.875, 0.1, 0.1]);
    }

    #[test]
    fn cosine_falls_from_base_to_its_floor_after_the_warm_up() {
        let cosine = schedule(serde_json::json!(
            {"epochs": 3, "warmupEpochs": 1, "decay": {"cosine": {"floor": 0.2}}}
        ));
        let wave = |share: f64| 0.2 + 0.4 * (1.0 + (std::f64::consts::PI * share).cos());
        let falling = [0.125, 0.375, 0.625, 0.875].map(wave);
        assert_close(&rates(&cosine, 1.0, 2), &[&[0.25, 0.75], &falling[..]].concat());
    }

    #[test]
    fn a_cosine_of_one_step_has_the_rate_of_its_middle() {
        let cosine = schedule(serde_json::json!(
            {"epochs": 2, "warmupEpochs": 1, "decay": {"cosine": {"floor": 0.2}}}
        ));
        assert_close(&rates(&cosine, 1.0, 1), &[0.5, 0.6]);
    }

    #[test]
    fn a_cosine_stays_at_its_floor_after_the_last_epoch() {
        let cosine = schedule(serde_json::json!({"epochs": 1, "decay": {"cosine": {"floor": 0.2}}}));
        assert_close(&[learning_rate(&cosine, 1.0, 1000, 10)], &[0.2]);
    }

    #[test]
    fn the_rate_is_not_negative_after_the_last_epoch() {
        let cyclic = schedule(serde_json::json!({"epochs": 1}));
        assert!(learning_rate(&cyclic, 1.0, 1000, 10).abs() < 1e-12);
        assert!(learning_rate(&cyclic, 1.0, 0, 0).is_finite());
    }
}
