//! The condition StorageTrouble: pods wait until a volume works again. Pure.

use datjob_api::report::WaitingForStorage;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::StatusBuilder;
use crate::{
    conditions::{self, STORAGE_TROUBLE},
    events::Event,
    text::{clause, truncate},
};

/// Maximum size of an error. The trainer image is untrusted.
const MAX_ERROR_BYTES: usize = 1024;

impl StatusBuilder<'_> {
    /// Sets the condition while pods wait for their storage. It is absent until that happens first.
    pub(super) fn record_storage(&mut self, waiting: Option<&WaitingForStorage>) {
        let is_known = conditions::is_true(&self.next, STORAGE_TROUBLE);
        let Some(waiting) = waiting else {
            if is_known {
                self.set(STORAGE_TROUBLE, false, "Recovered", "The storage works again.");
            }
            return;
        };
        let message = message(waiting, &self.job.name_any());
        self.set(STORAGE_TROUBLE, true, reason(&waiting.trouble.error), &message);
        if !is_known {
            let key = format!("{} {}", waiting.pod, waiting.trouble.since);
            self.events.push(Event::warning(STORAGE_TROUBLE, key, message));
        }
    }

    /// Ends the condition with the pods that waited.
    pub(super) fn end_storage_trouble(&mut self) {
        if conditions::is_true(&self.next, STORAGE_TROUBLE) {
            self.set(STORAGE_TROUBLE, false, "PodsEnded", "The pods that waited have ended.");
        }
    }
}

/// Reason of the condition, by the name of the system's error.
fn reason(error: &str) -> &'static str {
    match error {
        "ENOSPC" | "EDQUOT" => "VolumeFull",
        "EROFS" => "VolumeReadOnly",
        _ => "VolumeUnavailable",
    }
}

fn message(WaitingForStorage { pods, pod, trouble }: &WaitingForStorage, job: &str) -> String {
    let since = i64::try_from(trouble.since).ok().and_then(|second| Timestamp::from_second(second).ok());
    let since = since.map_or(String::new(), |since| format!(" since {since}"));
    let error = clause(&truncate(&trouble.message, MAX_ERROR_BYTES));
    let others = match pods.saturating_sub(1) {
        0 => String::new(),
        1 => " 1 other pod waits too.".to_owned(),
        others => format!(" {others} other pods wait too."),
    };
    format!("Pod {job}-{pod} retries{since}: {error}.{others}")
}

#[cfg(test)]
mod tests {
    use datjob_api::report::StorageTrouble;

    use super::*;

    fn waiting(pods: u32, error: &str, since: u64) -> WaitingForStorage {
        let message = format!("cannot write /checkpoints/uid/checkpoint-0003.safetensors: ({error})");
        WaitingForStorage { pods, pod: 1, trouble: StorageTrouble { error: error.into(), message, since } }
    }

    #[test]
    fn the_message_names_pod_path_error_and_time() {
        let expected = "Pod fashion-1 retries since 2023-11-14T22:13:20Z: cannot write \
                        /checkpoints/uid/checkpoint-0003.safetensors: (ENOSPC).";
        assert_eq!(message(&waiting(1, "ENOSPC", 1_700_000_000), "fashion"), expected);
        let two = message(&waiting(2, "ENOSPC", 1_700_000_000), "fashion");
        assert_eq!(two, format!("{expected} 1 other pod waits too."));
        let invalid = message(&waiting(4, "EIO", u64::MAX), "fashion");
        assert!(invalid.starts_with("Pod fashion-1 retries: cannot write "), "{invalid}");
        assert!(invalid.ends_with("(EIO). 3 other pods wait too."), "{invalid}");
    }

    #[test]
    fn the_reason_is_the_kind_of_fault() {
        let reasons = ["ENOSPC", "EDQUOT", "EROFS", "ESTALE", "?"].map(reason);
        let expected =
            ["VolumeFull", "VolumeFull", "VolumeReadOnly", "VolumeUnavailable", "VolumeUnavailable"];
        assert_eq!(reasons, expected);
    }
}
