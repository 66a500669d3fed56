//! A rank's shard of a batch: made on the host, and brought to the device while it works on the one before.

use std::time::Duration;

use datjob_api::{
    Training,
    training::{Attack, Objective, ThreatModel},
};
use tch::Tensor;

use super::{TrainError, meter::Meter};
use crate::placement::{DeviceEvent, PendingScalar, PendingTensor, Placement};
use datjob_adversarial::{attack::PerturbationSet, model::Network, smoothing::NoisyCopies, tensors};
use datjob_data::{ImageBatch, random::Start};

/// A shard on its way to the device.
pub(super) struct Ahead {
    pixels: PendingTensor,
    labels: PendingTensor,
    noise: PendingTensor,
    /// Noise of the copies and their number, for smoothing.
    copies: Option<(PendingTensor, u32)>,
    indices: Vec<usize>,
    /// Images of all ranks.
    images: usize,
}

/// A shard on the device.
pub(super) struct Batch {
    /// `[N, C, H, W]` in [0, 1], in the network's memory format.
    pub images: Tensor,
    /// i64 `[N]`, or probabilities f32 `[N, classes]` of mixed images.
    pub labels: Tensor,
    /// Start of the attack, like `images`.
    pub noise: Tensor,
    /// The images' noisy copies, for smoothing.
    pub copies: Option<NoisyCopies>,
    /// The indices of the images in the data set ([`ImageBatch::indices`]), `[N]`.
    pub indices: Vec<usize>,
    /// Images of all ranks.
    pub global: usize,
}

impl Ahead {
    /// The images of a shard in a step of the epoch `epoch` (counted from 0) with `images` images on all ranks, of `classes`
    /// classes.
    pub(super) fn begin(
        placement: Placement,
        training: &Training,
        shard: ImageBatch,
        epoch: u64,
        (images, classes): (usize, i64),
    ) -> Result<Self, TrainError> {
        let Training { seed, threat_model, .. } = training;
        let (pixels, _) = tensors::byte_batch(&shard)?;
        let labels = tensors::targets(&shard, classes)?;
        let ImageBatch { indices, shape, .. } = shard;
        let start = start(&training.attack.method, &training.objective, threat_model);
        let noise = tensors::training_noise(*seed, epoch, &indices, shape, start)?;
        let copies = match &training.smoothing {
            Some(smoothing) => {
                let samples = smoothing.samples();
                let noise =
                    tensors::smoothing_noise(*seed, epoch, &indices, shape, smoothing.sigma, samples)?;
                Some((placement.upload(noise)?, samples))
            }
            None => None,
        };
        Ok(Self {
            copies,
            pixels: placement.upload(pixels)?,
            labels: placement.upload(labels)?,
            noise: placement.upload(noise)?,
            indices,
            images,
        })
    }

    /// The shard; work on it waits until it has arrived.
    pub(super) fn take(self, network: &Network) -> Result<Batch, TrainError> {
        let images = tensors::to_float(&self.pixels.into_tensor()?)?;
        let copies = match self.copies {
            Some((noise, samples)) => {
                Some(NoisyCopies::new(samples, network.prepare_input(&noise.into_tensor()?)?))
            }
            None => None,
        };
        Ok(Batch {
            copies,
            images: network.prepare_input(&images)?,
            labels: self.labels.into_tensor()?,
            noise: self.noise.into_tensor()?,
            indices: self.indices,
            global: self.images,
        })
    }
}

/// Deviation of the noise from which TRADES and MART start, in units of the pixel range: that of the published code.
const DIVERGENCE_START: f64 = 0.001;

/// How the start of an attack is drawn.
fn start(attack: &Attack, objective: &Objective, threat_model: &ThreatModel) -> Start {
    let PerturbationSet { norm, epsilon } = threat_model.into();
    match (attack, objective) {
        (Attack::NFgsm(spec), _) => Start::Linf { radius: spec.noise * epsilon },
        (Attack::Pgd(_) | Attack::Fgsm(_), Objective::CrossEntropy(_)) => Start::in_ball(norm, epsilon),
        (Attack::Pgd(_) | Attack::Fgsm(_), Objective::Trades(_) | Objective::Mart(_)) => {
            Start::Normal { deviation: DIVERGENCE_START }
        }
    }
}

/// What is read of a step when the next one is under way.
pub(super) struct Aftermath {
    pub loss: PendingScalar,
    pub attack: (DeviceEvent, DeviceEvent),
    /// The step, counted from 1 over all epochs, and its epoch, counted from 1.
    pub step: u64,
    pub epoch: u32,
    /// What the loss is divided by, to be the mean over the shard's images.
    pub divisor: f64,
}

impl Aftermath {
    /// Reads it into the meter; a loss that left the numbers ends the training.
    pub(super) fn read(self, meter: &mut Meter) -> Result<(), TrainError> {
        let value = self.loss.wait()?;
        if !value.is_finite() {
            return Err(TrainError::NotFinite { value, step: self.step, epoch: self.epoch });
        }
        let (begin, end) = self.attack;
        let attack: Duration = begin.elapsed_time(&end)?;
        meter.measured(value / self.divisor, attack);
        Ok(())
    }
}
