use serde::{Deserialize, Serialize};

/// Epochs, batch size, learning rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crd", schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.warmupEpochs == 0 || (has(self.decay) && !has(self.decay.cyclic))",
        "message": "warmupEpochs goes with decay.piecewise and decay.cosine: a cyclic schedule rises by itself",
        "fieldPath": ".warmupEpochs"
    },
    {
        "rule": "self.warmupEpochs <= self.epochs",
        "message": "warmupEpochs is more than epochs",
        "fieldPath": ".warmupEpochs"
    }
])))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// How often training goes over the training images.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 100_000)))]
    pub epochs: u32,
    /// Most images in a step, over all ranks. An epoch is cut into as few steps as that allows, of equal size give or
    /// take one image, so that no image is left out or counted twice.
    #[serde(default = "super::defaults::batch_size")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1_000_000)))]
    pub batch_size: u32,
    /// Epochs in which the learning rate rises linearly from 0, with `piecewise` and `cosine`.
    #[serde(default)]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 10_000)))]
    pub warmup_epochs: u32,
    /// The learning rate over time; one cycle (`cyclic: {}`) where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<Decay>,
    /// How the optimizer's learning rate grows with the batch; not at all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Local SGD (Stich, arXiv 1805.09767): each rank takes so many steps by itself, on its share of the batch, before
    /// the ranks' weights are averaged. In every step, by averaged gradients, where absent or 1.
    #[serde(default, skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub local_steps: Option<u32>,
}

/// Whether ranks average in every step, in either way of writing it.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(local_steps: &Option<u32>) -> bool {
    matches!(local_steps, None | Some(1))
}

/// How the learning rate grows with the batch: the optimizer's is for `baseBatchSize` images in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scaling {
    /// Linear (customary for SGD and LARS) or SquareRoot (for LAMB and AdamW).
    pub rule: ScalingRule,
    /// The batch that the optimizer's learning rate is for.
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1_000_000)))]
    pub base_batch_size: u32,
}

/// How a learning rate grows with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ScalingRule {
    /// In proportion (Goyal et al., arXiv 1706.02677).
    Linear,
    /// With its square root.
    SquareRoot,
}

/// The learning rate over time. Exactly one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Decay {
    /// Constant, then multiplied at given epochs.
    Piecewise(Piecewise),
    /// From 0 up to the optimizer's rate and down to 0 again, linearly, once.
    Cyclic(Cyclic),
    /// Down along half a cosine (Loshchilov and Hutter, arXiv 1608.03983), after the warm-up.
    Cosine(Cosine),
}

/// Down along half a cosine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cosine {
    /// Where it ends, as a share of the highest rate.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub floor: f64,
}

/// Constant, then multiplied at given epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Piecewise {
    /// After how many epochs the rate is multiplied; none keeps it constant.
    #[cfg_attr(feature = "crd", schemars(length(max = 64), inner(range(min = 1, max = 100_000))))]
    pub at: Vec<u32>,
    /// By what it is multiplied.
    #[serde(default = "tenth")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub factor: f64,
}

fn tenth() -> f64 {
    0.1
}

/// From 0 up and down to 0 again, linearly, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cyclic {
    /// At which share of all steps the rate is highest.
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub peak: f64,
}

impl Default for Cyclic {
    fn default() -> Self {
        Self { peak: 0.4 }
    }
}
