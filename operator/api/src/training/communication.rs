use serde::{Deserialize, Serialize};

/// How ranks talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Communication {
    /// What carries gradients: Auto (NCCL where every rank has a GPU of its own, Gloo otherwise), NCCL or Gloo.
    pub backend: Backend,
}

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
    fn the_default_does_not_change_a_spec_of_before() {
        assert!(Communication::default().is_default());
        let nccl: Communication = serde_json::from_str(r#"{"backend": "NCCL"}"#).unwrap();
        assert!(!nccl.is_default());
    }
}
