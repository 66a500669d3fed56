//! Defaults of the training spec, including those that depend on other fields. Pure.

use super::{
    Augmentation, Checkpoint, CutMix, Cyclic, Data, Decay, DuringAttack, Epsilon, Evaluation, Fgsm,
    FinalAttack, FinalPgd, Keep, NFgsm, Pgd, RandomResizedCrop, Scaling, ScalingRule, Schedule, ThreatModel,
    Validation, Variation,
};

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_epochs: 1, every_seconds: 600, keep: Keep::default() }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: 2 }
    }
}

impl Default for Validation {
    fn default() -> Self {
        Self { count: 1000, seed: 0 }
    }
}

impl Default for Pgd {
    fn default() -> Self {
        Self { steps: 10, step_size: None }
    }
}

impl Default for NFgsm {
    fn default() -> Self {
        Self { noise: 2.0, step_size: None }
    }
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            every_epochs: 1,
            during: DuringAttack::default(),
            final_: vec![FinalAttack::Pgd(FinalPgd { steps: 20, restarts: None, step_size: None })],
            sweep: None,
            certify: None,
            target: None,
        }
    }
}

impl Default for DuringAttack {
    fn default() -> Self {
        Self::Pgd(Pgd::default())
    }
}

impl Data {
    /// Augmentation of training images, with the data set's defaults filled in.
    pub fn variation(&self) -> Variation {
        let Augmentation { crop, flip, random_resized_crop, cutout, cut_mix } = self.augmentation;
        let default_crop = (self.dataset.is_encoded() && crop.is_none()).then(RandomResizedCrop::default);
        Variation {
            crop: match crop {
                None if random_resized_crop.is_some() => 0,
                crop => crop.unwrap_or(self.dataset.crop_by_default()),
            },
            flip: flip.unwrap_or(self.dataset.flips_by_default()),
            random_resized_crop: random_resized_crop.or(default_crop),
            cutout: cutout.unwrap_or(0),
            cut_mix,
        }
    }

    /// Side in pixels of the square to which encoded images are resized.
    pub fn image_size(&self) -> u32 {
        self.image_size.unwrap_or(224)
    }
}

impl Default for CutMix {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { min_area: 0.08 }
    }
}

/// Step size of PGD; defaults to 2.5 ε / steps (Madry et al., section 5).
fn pgd_step_size(step_size: Option<&Epsilon>, steps: u32, threat_model: &ThreatModel) -> f64 {
    step_size.map_or_else(|| 2.5 * threat_model.epsilon.value() / f64::from(steps), Epsilon::value)
}

impl Pgd {
    /// The step size; defaults to 2.5 ε / steps.
    pub fn step_size(&self, threat_model: &ThreatModel) -> f64 {
        pgd_step_size(self.step_size.as_ref(), self.steps, threat_model)
    }
}

impl FinalPgd {
    /// The step size; defaults to 2.5 ε / steps.
    pub fn step_size(&self, threat_model: &ThreatModel) -> f64 {
        pgd_step_size(self.step_size.as_ref(), self.steps, threat_model)
    }
}

impl Fgsm {
    /// The step size; defaults to 1.25 ε (Wong et al., "Fast is better than free").
    pub fn step_size(&self, threat_model: &ThreatModel) -> f64 {
        self.step_size.as_ref().map_or(1.25 * threat_model.epsilon.value(), Epsilon::value)
    }
}

impl NFgsm {
    /// The step size; defaults to ε.
    pub fn step_size(&self, threat_model: &ThreatModel) -> f64 {
        self.step_size.as_ref().map_or(threat_model.epsilon.value(), Epsilon::value)
    }
}

impl Schedule {
    /// The decay; defaults to one cycle.
    pub fn decay(&self) -> Decay {
        self.decay.clone().unwrap_or_else(|| Decay::Cyclic(Cyclic::default()))
    }

    /// Number of steps before ranks average; defaults to 1.
    pub fn local_steps(&self) -> u32 {
        self.local_steps.unwrap_or(1)
    }

    /// Factor of the learning rate for the batch size.
    pub fn scale(&self) -> f64 {
        let Some(Scaling { rule, base_batch_size }) = self.scaling else { return 1.0 };
        let ratio = f64::from(self.batch_size) / f64::from(base_batch_size);
        match rule {
            ScalingRule::Linear => ratio,
            ScalingRule::SquareRoot => ratio.sqrt(),
        }
    }
}

pub(super) fn batch_size() -> u32 {
    128
}
