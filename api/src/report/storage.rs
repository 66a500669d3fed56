//! Faults of storage that pods wait for.

use serde::{Deserialize, Serialize};

/// Pods that wait until their storage works again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingForStorage {
    /// Number of these pods.
    pub pods: u32,
    /// Index of the first one.
    pub pod: u32,
    /// What this pod waits for.
    pub trouble: StorageTrouble,
}

/// A fault of storage that may pass, such as a full volume. The operation is retried until it succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageTrouble {
    /// Name of the error, for example ENOSPC.
    pub error: String,
    /// What failed, on which path, and why: a sentence without a full stop.
    pub message: String,
    /// When the fault was first met, in seconds since 1970, by the clock of the pod.
    pub since: u64,
}
