use serde::{Deserialize, Serialize};

/// How ranks talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Communication {
    /// What carries gradients: Auto (NCCL where every rank has a GPU of its own, Gloo otherwise), NCCL or Gloo.
    pub backend: Backend,
    /// Sends gradients in fewer bits; in 32 where absent. For networks slower than about 10 Gbit/s: what is compressed
    /// goes through host memory and Gloo, also between GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// How gradients are sent in fewer bits: each rank averages its share of them in 32 bits and sends the average to all.
/// Exactly one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Compression {
    /// 8 bits, with a scale for every block of numbers (QSGD, Alistarh et al., with the largest number of the block in the
    /// place of the norm).
    Int8(Int8),
    /// IEEE half precision.
    Fp16(Half),
    /// The upper half of 32 bits: less exact than fp16, never too large for it.
    Bf16(Half),
}

/// 8 bits for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Int8 {
    /// Numbers that share a scale.
    #[cfg_attr(feature = "crd", schemars(range(min = 16, max = 65536)))]
    pub bucket: u32,
    /// 2: the average is sent in 8 bits too (a quarter of the bytes of 32 bits). 1: it is sent in 32.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 2)))]
    pub sides: u32,
    /// Rounds to the nearest instead of at random, and adds what rounding took away to the next step's gradient.
    pub error_feedback: bool,
}

impl Default for Int8 {
    fn default() -> Self {
        Self { bucket: 512, sides: 2, error_feedback: false }
    }
}

/// 16 bits for a number, rounded to the nearest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Half {}

impl Communication {
    /// Whether nothing was chosen. Then it is left out of the spec's JSON, whose hash names checkpoints that are older
    /// than this field.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What carries gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Backend {
    /// NCCL where every rank has a GPU of its own, Gloo otherwise.
    #[default]
    Auto,
    /// From GPU to GPU; refused where ranks have none, or share one.
    #[serde(rename = "NCCL")]
    Nccl,
    /// Through host memory, with and without GPUs.
    Gloo,
}

impl Backend {
    /// What a world uses whose pods each have so many workers on so many GPUs: `true` for NCCL; nothing where NCCL was
    /// asked for and cannot be.
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
    fn nccl_takes_a_gpu_for_each_rank() {
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
    fn eight_bits_go_both_ways_by_default() {
        let int8: Communication = serde_json::from_str(r#"{"compression": {"int8": {}}}"#).unwrap();
        let expected = Int8 { bucket: 512, sides: 2, error_feedback: false };
        assert_eq!(int8.compression, Some(Compression::Int8(expected)));
        assert!(
            serde_json::from_str::<Communication>(r#"{"compression": {"int8": {}, "fp16": {}}}"#).is_err()
        );
    }

    #[test]
    fn the_default_does_not_change_a_spec_of_before() {
        assert!(Communication::default().is_default());
        let nccl: Communication = serde_json::from_str(r#"{"backend": "NCCL"}"#).unwrap();
        assert!(!nccl.is_default());
        assert_eq!(serde_json::to_string(&nccl).unwrap(), r#"{"backend":"NCCL"}"#);
    }
}
