//! How far pods are in preparing data.

use serde::{Deserialize, Serialize};

/// Preparation of the data by the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preparation {
    /// Number of pods that prepare data.
    pub pods: u32,
    /// Index of the pod that `state` is of: the first one with an error, or else the one that is farthest behind.
    pub pod: u32,
    /// The state of this pod.
    pub state: PreparationState,
}

/// How far a pod is in preparing data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreparationState {
    /// What the pod is doing.
    pub step: PreparationStep,
    /// Bytes that are done in this step.
    pub done: u64,
    /// Bytes of this step, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Error of the source since the last progress: a sentence without a full stop, which ends with the time of the retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PreparationState {
    /// Completed part of the step, in percent.
    pub fn percent(&self) -> Option<u32> {
        let total = self.total.filter(|total| *total > 0)?;
        u32::try_from((u128::from(self.done) * 100 / u128::from(total)).min(100)).ok()
    }
}

/// A step of preparing data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PreparationStep {
    /// Downloads an archive, objects or a file.
    Downloading,
    /// Unpacks an archive.
    Unpacking,
}
