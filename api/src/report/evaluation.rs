//! Progress of a running evaluation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an evaluation measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EvaluationPart {
    /// Accuracy on the validation split, after an epoch.
    Validation,
    /// Accuracy on the test set: the final attacks, then the sweep.
    Test,
    /// Certified accuracy on the test set.
    Certification,
}

impl EvaluationPart {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation split",
            Self::Test => "test set",
            Self::Certification => "test set (certification)",
        }
    }
}

/// Progress of a running evaluation. Each rank evaluates its share of the images; this is the one of rank 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationProgress {
    /// What is measured: accuracy on the validation split, accuracy on the test set, or certified accuracy on the test set.
    pub part: EvaluationPart,
    /// The running attack and its stage, for example "autoattack (apgd-t)". Empty for a certification.
    pub attack: String,
    /// Iteration of the running attack on its batch of images, counted from 1; 0 for a certification.
    pub iteration: u64,
    /// Number of iterations of the running attack.
    pub iterations: u64,
    /// Number of images that are evaluated under all attacks.
    pub images: u64,
    /// Number of these images that are robust so far. Absent for a certification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robust: Option<u64>,
    /// Number of all images.
    pub total: u64,
    /// Estimated seconds until the end of this part. Absent until something is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
}
