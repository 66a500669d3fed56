//! The report as Prometheus metrics.

use std::{fmt, sync::atomic::AtomicU64};

use datjob_api::report::Report;
use prometheus_client::{encoding::text, metrics::gauge::Gauge, registry::Registry};

/// The media type of OpenMetrics text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of `report`, as OpenMetrics text. What is not known is absent; only the pod that hosts the rendezvous knows how
/// many pods have joined.
pub fn encode(report: &Report, is_host: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("dat_trainer");
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("generation", "Worlds formed for this job", f64::from(report.generation));
    gauge("world_size", "Ranks in the world", f64::from(report.world_size));
    if is_host {
        gauge(
            "pods_joined",
            "Pods that have joined the rendezvous and have their data",
            f64::from(report.pods_joined),
        );
    }
    if let Some(progress) = &report.progress {
        gauge("epoch", "Completed epochs", f64::from(progress.epoch));
        gauge("step", "Completed optimizer steps", progress.step as f64);
        gauge("images_per_second", "Training images per second over all ranks", progress.images_per_second);
        gauge("loss", "Mean training loss of the current epoch, on the images of rank 0", progress.loss);
        gauge("learning_rate", "Learning rate of the last step", progress.learning_rate);
    }
    if let Some(timing) = &report.timing {
        gauge("epoch_seconds", "Duration of the last epoch in seconds", timing.epoch_seconds);
        gauge("data_seconds", "Seconds of the last epoch spent waiting for images", timing.data_seconds);
        gauge("attack_seconds", "Seconds of the last epoch spent on attacks", timing.attack_seconds);
        gauge(
            "communication_seconds",
            "Seconds of the last epoch spent in communication not hidden by computation",
            timing.communication_seconds,
        );
        gauge(
            "sent_bytes_per_step",
            "Bytes sent by rank 0 per step in the last epoch, for gradients or weights",
            timing.bytes_per_step as f64,
        );
    }
    if let Some(peak) = report.timing.as_ref().and_then(|timing| timing.peak_gpu_memory_bytes) {
        gauge("gpu_peak_memory_bytes", "Peak GPU memory of rank 0's tensors, in bytes", peak as f64);
    }
    if let Some(accuracy) = &report.accuracy {
        let ratio = |correct: u64, total: u64| correct as f64 / total.max(1) as f64;
        gauge(
            "validation_clean_accuracy",
            "Clean accuracy on the validation split, from 0 to 1",
            ratio(accuracy.clean.correct, accuracy.clean.total),
        );
        gauge(
            "validation_robust_accuracy",
            "Robust accuracy on the validation split, from 0 to 1",
            ratio(accuracy.robust.correct, accuracy.robust.total),
        );
    }
    let mut output = String::new();
    text::encode(&mut output, &registry)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use datjob_api::report::Progress;

    use super::*;
    use crate::agent::board::Board;

    #[test]
    fn values_that_are_not_known_are_absent() {
        let mut report = Board::new("job", "pod", 1).report();
        let metrics = encode(&report, false).unwrap();
        for name in ["epoch", "loss", "accuracy", "seconds", "bytes", "pods_joined"] {
            assert!(!metrics.contains(name), "{name} in {metrics}");
        }
        assert!(encode(&report, true).unwrap().contains("dat_trainer_pods_joined 0.0"));
        report.progress = Some(Progress {
            epoch: 0,
            epochs: 3,
            step: 12,
            percent: 1,
            images_per_second: 10.0,
            remaining_seconds: 60,
            loss: 2.5,
            learning_rate: 0.1,
        });
        let metrics = encode(&report, false).unwrap();
        assert!(
            metrics.contains("dat_trainer_step 12.0") && metrics.contains("dat_trainer_epoch 0.0"),
            "{metrics}"
        );
    }
}
