//! Speed, loss and the share of the parts of a step, in an epoch.

use std::time::{Duration, Instant};

use datjob_api::report::{Progress, Timing};

use super::exchange::Traffic;
use crate::{checkpoint::PartialEpoch, outputs::history::round_to_milliseconds};

/// Least time between two reports of progress.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is measured in one epoch, on one rank.
pub(super) struct Meter {
    epochs: u32,
    /// Epochs that were complete when this one began.
    epoch: u32,
    images_per_epoch: usize,
    steps_per_epoch: usize,
    started: Instant,
    last_report: Option<Instant>,
    images: usize,
    /// Steps of which loss and attack are known.
    measured: usize,
    loss: f64,
    rate: f64,
    attack: Duration,
    /// Communication that nothing hid, without the steps since the last [`Meter::sent`].
    communication: Duration,
    sent_bytes: u64,
    /// Steps in which these bytes were sent.
    sent_steps: u64,
    /// Time in which images were waited for before the training resumed.
    data: Duration,
}

impl Meter {
    /// Measures an epoch that begins, or goes on after what was `measured` before.
    pub(super) fn new(
        epochs: u32,
        epoch: u32,
        images_per_epoch: usize,
        steps_per_epoch: usize,
        measured: Option<PartialEpoch>,
    ) -> Self {
        let before = measured.unwrap_or_default();
        let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let now = Instant::now();
        Self {
            epochs,
            epoch,
            images_per_epoch,
            steps_per_epoch,
            started: now.checked_sub(duration(before.seconds)).unwrap_or(now),
            last_report: None,
            images: before.images as usize,
            measured: before.measured as usize,
            loss: before.loss,
            rate: 0.0,
            attack: duration(before.attack_seconds),
            communication: duration(before.communication_seconds),
            sent_bytes: before.sent_bytes,
            sent_steps: before.sent_steps,
            data: duration(before.data_seconds),
        }
    }

    /// What was measured so far, for a checkpoint. `waited_for_data` is the time since the epoch began, or the training
    /// resumed.
    pub(super) fn partial_epoch(&self, waited_for_data: Duration) -> PartialEpoch {
        PartialEpoch {
            images: self.images as u64,
            measured: self.measured as u64,
            loss: self.loss,
            seconds: self.started.elapsed().as_secs_f64(),
            attack_seconds: self.attack.as_secs_f64(),
            communication_seconds: self.communication.as_secs_f64(),
            data_seconds: (self.data + waited_for_data).as_secs_f64(),
            sent_bytes: self.sent_bytes,
            sent_steps: self.sent_steps,
        }
    }

    /// A step on a global batch of `images` images was asked for.
    pub(super) fn stepped(&mut self, images: usize) {
        self.images += images;
    }

    /// Adds the communication of some steps.
    pub(super) fn sent(&mut self, traffic: &Traffic) {
        self.communication += traffic.exposed;
        self.sent_bytes += traffic.bytes;
        self.sent_steps += traffic.steps;
    }

    /// What a step's loss was, as the mean over this rank's shard, and how long its attack took; known a step late.
    pub(super) fn measured(&mut self, loss: f64, attack: Duration) {
        self.measured += 1;
        self.loss += loss;
        self.attack += attack;
    }

    /// The progress after `steps` steps of this epoch, unless it was reported just now.
    pub(super) fn progress(&mut self, step: u64, steps: usize, rate: f64) -> Option<Progress> {
        self.rate = rate;
        // The first loss is known a step late.
        if self.measured == 0
            || steps == self.steps_per_epoch
            || self.last_report.is_some_and(|at| at.elapsed() < INTERVAL)
        {
            return None;
        }
        self.last_report = Some(Instant::now());
        Some(self.at(step, self.epoch, steps))
    }

    /// The progress after the whole epoch.
    pub(super) fn end_of_epoch(&self, step: u64) -> Progress {
        self.at(step, self.epoch + 1, 0)
    }

    fn at(&self, step: u64, epoch: u32, steps_of_epoch: usize) -> Progress {
        let images_per_second = self.images as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let done = f64::from(epoch) + steps_of_epoch as f64 / self.steps_per_epoch.max(1) as f64;
        let images_left = (f64::from(self.epochs) - done).max(0.0) * self.images_per_epoch as f64;
        Progress {
            epoch,
            epochs: self.epochs,
            step,
            percent: (100.0 * done / f64::from(self.epochs.max(1))) as u32,
            images_per_second: tenths(images_per_second),
            remaining_seconds: (images_left / images_per_second.max(1e-9)).min(1e15) as u64,
            loss: (self.loss / self.measured.max(1) as f64 * 1e4).round() / 1e4,
            learning_rate: self.rate,
        }
    }

    /// Where the time of the epoch went. `waited_for_data` is as in [`partial_epoch`](Self::partial_epoch).
    pub(super) fn timing(&self, waited_for_data: Duration, peak_gpu_memory_bytes: Option<u64>) -> Timing {
        Timing {
            epoch_seconds: round_to_milliseconds(self.started.elapsed().as_secs_f64()),
            attack_seconds: round_to_milliseconds(self.attack.as_secs_f64()),
            communication_seconds: round_to_milliseconds(self.communication.as_secs_f64()),
            bytes_per_step: self.sent_bytes / self.sent_steps.max(1),
            data_seconds: round_to_milliseconds((self.data + waited_for_data).as_secs_f64()),
            peak_gpu_memory_bytes,
        }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reported_before_a_loss_is_known() {
        let mut meter = Meter::new(2, 0, 100, 10, None);
        meter.stepped(10);
        assert_eq!(meter.progress(1, 1, 0.1), None);
        meter.stepped(10);
        meter.measured(2.5, Duration::from_millis(20));
        let progress = meter.progress(2, 2, 0.2).unwrap();
        assert_eq!((progress.step, progress.percent, progress.epochs), (2, 10, 2));
        assert!((progress.loss - 2.5).abs() < 1e-12 && (progress.learning_rate - 0.2).abs() < 1e-12);
        // It was reported just now.
        meter.stepped(10);
        assert_eq!(meter.progress(3, 3, 0.2), None);
    }

    #[test]
    fn an_epoch_goes_on_with_what_was_measured() {
        let mut meter = Meter::new(2, 0, 100, 10, None);
        meter.stepped(10);
        meter.measured(2.0, Duration::from_secs(3));
        meter.sent(&Traffic { exposed: Duration::from_secs(2), bytes: 300, steps: 3 });
        let before = PartialEpoch { seconds: 50.0, ..meter.partial_epoch(Duration::from_secs(5)) };
        let mut meter = Meter::new(2, 0, 100, 10, Some(before));
        meter.stepped(10);
        meter.measured(1.0, Duration::from_secs(1));
        // Two parts of the epoch end with a checkpoint, the last one does not.
        meter.sent(&Traffic { exposed: Duration::from_secs(1), bytes: 100, steps: 1 });
        meter.sent(&Traffic { exposed: Duration::from_secs(4), bytes: 500, steps: 1 });
        let progress = meter.end_of_epoch(2);
        assert!((progress.loss - 1.5).abs() < 1e-9 && progress.images_per_second <= 20.0 / 50.0 + 0.05);
        let timing = meter.timing(Duration::from_secs(6), None);
        assert!(timing.epoch_seconds >= 50.0 && (timing.attack_seconds - 4.0).abs() < 1e-9);
        let seconds = [timing.communication_seconds, timing.data_seconds];
        assert_eq!(seconds.map(|seconds| format!("{seconds}")), ["7", "11"]);
        assert_eq!(timing.bytes_per_step, 180);
    }

    #[test]
    fn times_are_rounded_to_milliseconds() {
        let mut meter = Meter::new(1, 0, 100, 10, None);
        for _ in 0..3 {
            meter.measured(1.0, Duration::from_micros(7_200));
        }
        meter.sent(&Traffic { exposed: Duration::from_micros(40_400), bytes: 9, steps: 1 });
        let timing = meter.timing(Duration::from_micros(1_600), None);
        let times = [timing.attack_seconds, timing.communication_seconds, timing.data_seconds];
        assert_eq!(times.map(|seconds| format!("{seconds}")), ["0.022", "0.04", "0.002"]);
    }
}
