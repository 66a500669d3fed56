//! Preparation of the data by the pods: its message, and the error of its source. Pure.

use datjob_api::report::{Preparation, PreparationState, PreparationStep, Report};

use super::Blocker;
use crate::text::{clause, truncate};

/// Maximum size of an error. The trainer image is untrusted.
const MAX_ERROR_BYTES: usize = 512;

/// The error of a source, which the trainer retries: it may pass.
pub(super) fn source_error(report: &Report, job: &str) -> Option<Blocker> {
    let preparation = report.preparation.as_ref()?;
    let error = truncate(preparation.state.error.as_ref()?, MAX_ERROR_BYTES);
    let summary = format!("Pod {job}-{} waits for the source of its data", preparation.pod);
    Some(Blocker { may_pass: true, ..Blocker::new("DataSourceUnavailable", summary, &error) })
}

/// The message of a job whose pods prepare data. It is coarse, and does not name the slowest pod, because each change is a write to the API server.
pub(super) fn message(preparation: Option<&Preparation>, replicas: u32) -> String {
    let Some(Preparation { pods, state, .. }) = preparation else {
        return "The pods are preparing the data.".to_owned();
    };
    let who = match pods {
        1 => format!("1 of {replicas} pods is preparing the data"),
        _ => format!("{pods} of {replicas} pods are preparing the data"),
    };
    match clause(&progress(state)) {
        progress if progress.is_empty() => format!("{who}."),
        progress => format!("{who}; the slowest has {progress}."),
    }
}

/// "downloaded 40 % of 12.5 GiB"; empty before there is something to say.
fn progress(state: &PreparationState) -> String {
    let verb = match state.step {
        PreparationStep::Downloading => "downloaded",
        PreparationStep::Unpacking => "unpacked",
    };
    match (state.percent(), state.total) {
        (Some(percent), Some(total)) => format!("{verb} {} % of {}", percent / 10 * 10, size(total)),
        _ if state.done >> 30 > 0 => format!("{verb} {} GiB", state.done >> 30),
        _ => String::new(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{bytes} bytes"),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preparation(pods: u32, step: PreparationStep, done: u64, total: Option<u64>) -> Preparation {
        Preparation { pods, pod: 1, state: PreparationState { step, done, total, error: None } }
    }

    #[test]
    fn the_message_has_the_progress_of_the_slowest_pod() {
        use PreparationStep::{Downloading, Unpacking};
        let half = preparation(3, Downloading, 5 << 29, Some(11 << 29));
        for (preparation, expected) in [
            (None, "The pods are preparing the data."),
            (Some(half), "3 of 4 pods are preparing the data; the slowest has downloaded 40 % of 5.5 GiB."),
            (
                Some(preparation(1, Unpacking, 9, Some(3 << 19))),
                "1 of 4 pods is preparing the data; the slowest has unpacked 0 % of 1.5 MiB.",
            ),
            (
                Some(preparation(2, Downloading, 7 << 29, None)),
                "2 of 4 pods are preparing the data; the slowest has downloaded 3 GiB.",
            ),
            (Some(preparation(2, Downloading, 7 << 20, None)), "2 of 4 pods are preparing the data."),
            (Some(preparation(2, Downloading, 0, Some(0))), "2 of 4 pods are preparing the data."),
        ] {
            assert_eq!(message(preparation.as_ref(), 4), expected);
        }
    }
}
