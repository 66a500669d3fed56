//! Compares networks, attacks, loss, gradients and SGD with PyTorch, in float64 with the same random numbers. In float32,
//! the sign of a gradient near zero would depend on the kernel. `reference/make.py` generates the files; its head describes
//! how.

use std::collections::BTreeMap;

use datjob_adversarial::objective::summed_cross_entropy;
use datjob_adversarial::{
    attack::{FgsmParameters, PerturbationSet, PgdParameters, fgsm, pgd},
    model::{Mode, Network},
    objective,
    optim::{self, Sgd},
};
use datjob_api::training::{self, Architecture, CrossEntropy, Norm, Objective};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

#[path = "common/numbers.rs"]
mod numbers;

use numbers::{filled, numbers};

/// Maximum difference from PyTorch.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Reference {
    classes: i64,
    epsilon: f64,
    pgd_steps: u32,
    state: Vec<(String, Vec<i64>)>,
    parameters: Vec<String>,
    logits_eval: Vec<f64>,
    logits_train: Vec<f64>,
    pgd: Vec<f64>,
    fgsm: Vec<f64>,
    loss: f64,
    gradients: Samples,
    statistics: Samples,
    sgd: Samples,
    sgd_nesterov: Samples,
}

/// By name: sum, norm and 8 values of a tensor.
type Samples = BTreeMap<String, Vec<f64>>;

/// A network with the weights of the reference, and a batch.
struct Case {
    reference: Reference,
    network: Network,
    images: Tensor,
    labels: Tensor,
    noise: Tensor,
}

fn small_cnn() -> Case {
    Case::new(Architecture::SmallCnn, [1, 28, 28], include_str!("reference/small-cnn.json"))
}

fn resnet18() -> Case {
    Case::new(Architecture::Resnet18, [3, 16, 16], include_str!("reference/resnet18.json"))
}

fn samples(tensors: Vec<(String, Tensor)>) -> Samples {
    let sample = |(name, tensor): (String, Tensor)| {
        let flat = tensor.detach().to_kind(Kind::Double).flatten(0, -1);
        let count = flat.numel() as i64;
        let picked = (0..8).map(|j| flat.double_value(&[j * 2_654_435_761 % count]));
        let sums = [flat.sum(Kind::Double), flat.norm()].map(|t| t.double_value(&[]));
        (name, sums.into_iter().chain(picked).collect())
    };
    tensors.into_iter().map(sample).collect()
}

fn assert_close(context: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "{context}[{index}]: {a} instead of {b}");
    }
}

fn assert_tensor(context: &str, found: &Tensor, expected: &[f64]) {
    assert_close(context, &Vec::<f64>::try_from(found.detach().flatten(0, -1)).unwrap(), expected);
}

fn assert_samples(context: &str, found: &Samples, expected: &Samples) {
    assert!(found.keys().eq(expected.keys()), "{context}");
    for (name, values) in found {
        assert_close(&format!("{context} of {name}"), values, &expected[name]);
    }
}

impl Case {
    fn new(architecture: Architecture, image_shape: [i64; 3], json: &str) -> Self {
        let reference: Reference = serde_json::from_str(json).unwrap();
        let options = (Kind::Double, Device::Cpu);
        let network = Network::new(&architecture.into(), image_shape, reference.classes, 0, options).unwrap();
        let shape = [&[4], &image_shape[..]].concat();
        let images = (numbers(1000, &shape) + 1.0) / 2.0;
        let labels = Tensor::from_slice(&[0_i64, 1, 2, 3].map(|i| i * 7 % reference.classes));
        let noise = numbers(1001, &shape) * reference.epsilon;
        let case = Self { reference, network, images, labels, noise };
        case.fill();
        case
    }

    fn fill(&self) {
        let state = self.reference.state.iter().enumerate();
        let tensors = state.map(|(stream, (name, shape))| (name.clone(), filled(stream as u32, name, shape)));
        self.network.load_state(tensors).unwrap();
    }

    fn pgd(&self) -> Tensor {
        let (epsilon, steps) = (self.reference.epsilon, self.reference.pgd_steps);
        let step_size = 2.5 * epsilon / f64::from(steps);
        let perturbations = PerturbationSet { norm: Norm::Linf, epsilon };
        let parameters = PgdParameters { perturbations, step_size, steps };
        let loss = |x: &Tensor| summed_cross_entropy(&self.network.forward(x, Mode::Eval)?, &self.labels);
        self.network.with_frozen_weights(|| pgd(&loss, &self.images, &parameters, &self.noise)).unwrap()
    }

    fn loss(&self, adversarial: &Tensor, clean_weight: f64, scale: f64) -> Tensor {
        let objective = Objective::CrossEntropy(CrossEntropy { clean_weight, label_smoothing: 0.0 });
        let Self { network, images, labels, .. } = self;
        objective::loss(network, &objective, Mode::Train, images, adversarial, labels, scale).unwrap()
    }

    fn names_match_pytorch(&self) {
        let state: Vec<_> = self.network.state().into_iter().map(|(name, t)| (name, t.size())).collect();
        assert_eq!(state, self.reference.state);
        let parameters: Vec<_> = self.network.parameters().into_iter().map(|(name, _)| name).collect();
        assert_eq!(parameters, self.reference.parameters);
    }

    fn logits_match(&self) {
        let Self { network, images, reference, .. } = self;
        let before = samples(network.buffers());
        assert_tensor("eval", &network.forward(images, Mode::Eval).unwrap(), &reference.logits_eval);
        let frozen = network.forward(images, Mode::TrainFrozenStatistics).unwrap();
        assert_tensor("frozen statistics", &frozen, &reference.logits_train);
        assert_eq!(samples(network.buffers()), before, "neither mode may touch the running statistics");
        assert_tensor("train", &network.forward(images, Mode::Train).unwrap(), &reference.logits_train);
    }

    fn attacks_match(&self) {
        let Self { network, images, labels, noise, reference } = self;
        let before = samples(network.state());
        assert_tensor("pgd", &self.pgd(), &reference.pgd);
        let parameters = FgsmParameters { epsilon: reference.epsilon, step_size: 1.25 * reference.epsilon };
        let loss =
            |x: &Tensor| summed_cross_entropy(&network.forward(x, Mode::TrainFrozenStatistics)?, labels);
        let adversarial = network.with_frozen_weights(|| fgsm(&loss, images, &parameters, noise)).unwrap();
        assert_tensor("fgsm", &adversarial, &reference.fgsm);
        assert_eq!(samples(network.state()), before);
        assert!(network.parameters().iter().all(|(_, p)| p.requires_grad() && !p.grad().defined()));
    }

    fn loss_gradients_and_statistics_match(&self) {
        let loss = self.loss(&self.pgd(), 0.5, 0.5);
        loss.backward();
        assert_close("loss", &[loss.double_value(&[])], &[self.reference.loss]);
        let gradients = self.network.parameters().into_iter().map(|(name, p)| (name, p.grad()));
        assert_samples("gradient", &samples(gradients.collect()), &self.reference.gradients);
        assert_samples("statistics", &samples(self.network.buffers()), &self.reference.statistics);
    }

    fn sgd_matches(&self) {
        let adversarial = self.pgd();
        for nesterov in [true, false] {
            self.fill();
            let spec = training::Sgd { learning_rate: 1.0, momentum: 0.9, nesterov, weight_decay: 5e-4 };
            let mut sgd = Sgd::new(self.network.parameters(), &spec).unwrap();
            for learning_rate in [0.01, 0.02, 0.005] {
                optim::zero_gradients(&self.network.parameters()).unwrap();
                self.loss(&adversarial, 0.0, 0.25).backward();
                sgd.step(learning_rate).unwrap();
            }
            let expected = if nesterov { &self.reference.sgd_nesterov } else { &self.reference.sgd };
            assert_samples("SGD", &samples(self.network.parameters()), expected);
        }
    }
}

#[test]
fn small_cnn_names_match_pytorch() {
    small_cnn().names_match_pytorch();
}

#[test]
fn small_cnn_logits_match_pytorch() {
    small_cnn().logits_match();
}

#[test]
fn small_cnn_attacks_match_pytorch() {
    small_cnn().attacks_match();
}

#[test]
fn small_cnn_loss_and_gradients_match_pytorch() {
    small_cnn().loss_gradients_and_statistics_match();
}

#[test]
fn small_cnn_sgd_matches_pytorch() {
    small_cnn().sgd_matches();
}

#[test]
fn resnet18_names_match_pytorch() {
    resnet18().names_match_pytorch();
}

#[test]
fn resnet18_logits_match_pytorch() {
    resnet18().logits_match();
}

#[test]
fn resnet18_attacks_match_pytorch() {
    resnet18().attacks_match();
}

#[test]
fn resnet18_loss_and_gradients_match_pytorch() {
    resnet18().loss_gradients_and_statistics_match();
}

#[test]
fn resnet18_sgd_matches_pytorch() {
    resnet18().sgd_matches();
}

#[test]
fn channels_last_does_not_change_results() {
    let mut case = resnet18();
    case.network.channels_last().unwrap();
    case.images = case.network.prepare_input(&case.images).unwrap();
    case.logits_match();
    case.fill();
    case.attacks_match();
    case.loss_gradients_and_statistics_match();
    let mut case = small_cnn();
    case.network.channels_last().unwrap();
    case.images = case.network.prepare_input(&case.images).unwrap();
    case.attacks_match();
    case.loss_gradients_and_statistics_match();
}
