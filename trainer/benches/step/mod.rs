//! The adversarial training step that the benchmarks measure: ResNet-18, 3×32×32, PGD-10, SGD with Nesterov momentum.

use datjob_adversarial::{
    attack::{self, AttackConfig, AttackInputs},
    model::{Mode, Network},
    objective,
    optim::{self, Sgd},
};
use datjob_api::training::{self, Architecture, Attack, Norm, Objective, Pgd, ThreatModel};
use datjob_c10d::{ProcessGroup, Reducer, ReducerOptions};
use datjob_data::random;
use datjob_trainer::placement::{DeviceEvent, Placement};
use tch::{Kind, Tensor};

const SHAPE: [i64; 3] = [3, 32, 32];

/// The training step of one rank. Every step uses the same images.
pub(crate) struct Step {
    placement: Placement,
    network: Network,
    optimizer: Sgd,
    /// Measures the time of communication.
    pub(crate) reducer: Reducer,
    attack: Attack,
    threat_model: ThreatModel,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
}

impl Step {
    /// Creates network, optimizer, reducer and images.
    pub(crate) fn new(placement: Placement, group: &ProcessGroup, batch: usize) -> Self {
        let device = placement.device();
        let mut network = Network::new(&Architecture::Resnet18.into(), SHAPE, 10, 0, (Kind::Float, device))
            .expect("a network");
        network.channels_last().expect("channels_last");
        let parameters = network.parameters();
        let optimizer = Sgd::new(network.parameters(), &training::Sgd::default()).expect("an optimizer");
        let reducer = Reducer::new(&parameters, group, ReducerOptions::default()).expect("a reducer");
        let threat_model =
            ThreatModel { norm: Norm::default(), epsilon: "8/255".parse().expect("an epsilon") };
        let indices: Vec<usize> = (group.rank() * batch..(group.rank() + 1) * batch).collect();
        let noise = |epoch, scale| {
            let noise = datjob_adversarial::tensors::training_noise(
                0,
                epoch,
                &indices,
                SHAPE,
                random::Start::Linf { radius: scale },
            )
            .expect("noise");
            noise.to_device(device)
        };
        let images = network.prepare_input(&(noise(1, 0.5) + 0.5)).expect("images");
        let labels = Tensor::arange(batch as i64, (Kind::Int64, device)).remainder(10);
        let start = noise(0, threat_model.epsilon.value());
        let attack = Attack::Pgd(Pgd::default());
        Self { placement, network, optimizer, reducer, attack, threat_model, images, labels, start }
    }

    /// Runs a step and returns the event at the end of its attack.
    pub(crate) fn run(&mut self) -> DeviceEvent {
        let Self { network, optimizer, reducer, images, labels, .. } = self;
        let objective = Objective::default();
        let config = AttackConfig {
            attack: &self.attack,
            objective: &objective,
            threat_model: &self.threat_model,
            step_scale: 1.0,
        };
        let inputs = AttackInputs { images, labels, start_noise: &self.start, noisy_copies: None };
        let adversarial =
            attack::generate_adversarial_examples(network, &config, &inputs).expect("an attack");
        let attack_end = self.placement.record_event().expect("an event");
        reducer.prepare_forward().expect("forward");
        let scale = 1.0 / labels.size()[0] as f64;
        let loss = objective::loss(network, &objective, Mode::Train, images, &adversarial, labels, scale)
            .expect("a loss");
        optim::zero_gradients(&network.parameters()).expect("gradients");
        reducer.prepare_backward().expect("backward");
        loss.f_backward().expect("a backward pass");
        optimizer.step(0.01).expect("a step");
        attack_end
    }
}

/// The median; of an even number of values, the upper one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
