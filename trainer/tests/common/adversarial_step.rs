//! An adversarial training step in float64, to compare devices.

use datjob_adversarial::{
    attack,
    model::{Mode, Network},
    objective, tensors,
};
use datjob_api::training::{Architecture, CrossEntropy, Norm, Objective, ThreatModel};
use datjob_c10d::{ProcessGroup, Reducer, ReducerOptions};
use datjob_data::random;
use tch::{Device, Kind, Tensor};

/// The tensors of an adversarial training step.
pub(crate) struct StepOutput {
    pub(crate) loss: Tensor,
    pub(crate) adversarial: Tensor,
    pub(crate) gradients: Vec<Tensor>,
}

/// Runs a step on a device, with the Reducer if there is a group.
pub(crate) fn step(
    device: Device,
    architecture: Architecture,
    shape: [i64; 3],
    group: Option<&ProcessGroup>,
) -> StepOutput {
    let mut network = Network::new(&architecture.into(), shape, 10, 3, (Kind::Double, device)).unwrap();
    network.channels_last().unwrap();
    let mut reducer =
        group.map(|group| Reducer::new(&network.parameters(), group, ReducerOptions::default()).unwrap());
    let indices: Vec<usize> = (0..8).collect();
    let noise = |epoch, scale| {
        tensors::training_noise(1, epoch, &indices, shape, random::Start::Linf { radius: scale })
            .unwrap()
            .to_kind(Kind::Double)
            .to_device(device)
    };
    let images = network.prepare_input(&(noise(1, 0.5) + 0.5)).unwrap();
    let labels = Tensor::arange(8, (Kind::Int64, device));
    let threat_model = ThreatModel { norm: Norm::default(), epsilon: "8/255".parse().unwrap() };
    let pgd =
        attack::PgdParameters { perturbations: (&threat_model).into(), step_size: 2.0 / 255.0, steps: 3 };
    let start = noise(2, pgd.perturbations.epsilon);
    let adversarial = network.with_frozen_weights(|| {
        let loss = |x: &Tensor| objective::summed_cross_entropy(&network.forward(x, Mode::Eval)?, &labels);
        attack::pgd(&loss, &images, &pgd, &start).unwrap()
    });
    if let Some(reducer) = &mut reducer {
        reducer.prepare_forward().unwrap();
    }
    let objective = Objective::CrossEntropy(CrossEntropy { clean_weight: 0.5, label_smoothing: 0.0 });
    let loss = objective::loss(&network, &objective, Mode::Train, &images, &adversarial, &labels, 1.0 / 8.0)
        .unwrap();
    if let Some(reducer) = &mut reducer {
        reducer.prepare_backward().unwrap();
    }
    loss.f_backward().unwrap();
    let gradients = network.parameters().iter().map(|(_, parameter)| parameter.grad().copy()).collect();
    StepOutput { loss: loss.detach(), adversarial, gradients }
}
