//! `communication`: gradient exchange between ranks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Gradient exchange between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Communication {
    /// Communication backend: Auto, NCCL or Gloo. Auto selects NCCL if every rank has a separate GPU, otherwise Gloo.
    /// Defaults to Auto.
    pub backend: Backend,
    /// Compression of gradients. It pays off on networks slower than about 10 Gbit/s. Compressed gradients go through
    /// host memory and Gloo, also between GPUs. If absent, gradients have 32 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// Compression of gradients. Each rank averages its part of the gradients in 32 bits and sends the average to all
/// ranks. Exactly one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Compression {
    /// 8 bits per value, with one scale per block of values (QSGD, Alistarh et al., with the largest magnitude of the
    /// block instead of its norm).
    Int8(Int8),
    /// IEEE half precision, rounded to nearest.
    Fp16(Half),
    /// bfloat16, rounded to nearest: less precise than fp16, with the range of 32 bits.
    Bf16(Half),
}

/// 8 bits per value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Int8 {
    /// Number of values that share a scale, from 16 to 65536. Defaults to 512.
    #[schemars(range(min = 16, max = 65536))]
    pub bucket: u32,
    /// 2 compresses the gradients and their average (a quarter of the bytes of 32 bits). 1 compresses only the
    /// gradients. Defaults to 2.
    #[schemars(range(min = 1, max = 2))]
    pub sides: u32,
    /// Whether to round to nearest and add the rounding error to the next step's gradient. If false, rounding is
    /// stochastic. Defaults to false.
    pub error_feedback: bool,
}

impl Default for Int8 {
    fn default() -> Self {
        Self { bucket: 512, sides: 2, error_feedback: false }
    }
}

/// 16 bits per value, rounded to nearest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Half {}

impl Communication {
    /// Whether all fields have their defaults. The JSON then omits the field, so that hashes of older specs do not
    /// change.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Communication backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Backend {
    /// NCCL if every rank has a separate GPU, otherwise Gloo.
    #[default]
    Auto,
    /// Between GPUs; requires one GPU per rank.
    #[serde(rename = "NCCL")]
    Nccl,
    /// Through host memory, with or without GPUs.
    Gloo,
}

impl Backend {
    /// Whether a world with these workers and GPUs per pod uses NCCL; `None` if it requires NCCL but cannot use it.
    pub fn uses_nccl(self, workers: u32, gpus: u32) -> Option<bool> {
        let possible = gpus > 0 && workers <= gpus;
        match self {
            Self::Auto => Some(possible),
            Self::Nccl => possible.then_some(true),
            Self::Gloo => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nccl_requires_a_gpu_per_rank() {
        let cases = [
            (Backend::Auto, [Some(false), Some(true), Some(true), Some(false)]),
            (Backend::Nccl, [None, Some(true), Some(true), None]),
            (Backend::Gloo, [Some(false); 4]),
        ];
        for (backend, expected) in cases {
            let found =
                [(1, 0), (1, 1), (1, 2), (2, 1)].map(|(workers, gpus)| backend.uses_nccl(workers, gpus));
            assert_eq!(found, expected, "{backend:?}");
        }
    }

    #[test]
    fn int8_compresses_both_directions_by_default() {
        let int8: Communication = serde_json::from_str(r#"{"compression": {"int8": {}}}"#).unwrap();
        let expected = Int8 { bucket: 512, sides: 2, error_feedback: false };
        assert_eq!(int8.compression, Some(Compression::Int8(expected)));
        assert!(
            serde_json::from_str::<Communication>(r#"{"compression": {"int8": {}, "fp16": {}}}"#).is_err()
        );
    }

    #[test]
    fn the_default_is_not_serialized() {
        assert!(Communication::default().is_default());
        let nccl: Communication = serde_json::from_str(r#"{"backend": "NCCL"}"#).unwrap();
        assert!(!nccl.is_default());
        assert_eq!(serde_json::to_string(&nccl).unwrap(), r#"{"backend":"NCCL"}"#);
    }
}
