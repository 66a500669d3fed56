//! Compares attacks, objectives and optimizers with PyTorch, in float64 with the same noise, on a network with three channels
//! and BatchNorm. `reference/methods.py` generates the expected values; its head describes how.

use std::collections::BTreeMap;

use datjob_adversarial::objective::{margins, summed_cross_entropy};
use datjob_adversarial::{
    attack::{
        ApgdLoss, ApgdParameters, AttackConfig, AttackInputs, FabParameters, PerturbationSet, PgdParameters,
        SquareParameters, apgd, fab_t, generate_adversarial_examples, pgd, square,
    },
    model::{Mode, Network},
    objective,
    optim::{self, Optimizer},
    smoothing::NoisyCopies,
    weight_perturbation,
};
use datjob_api::training::{Architecture, Attack, Norm, Objective, ThreatModel};
use datjob_data::random::Stream;
use serde::Deserialize;
use serde_json::json;
use tch::{Device, Kind, Tensor};

#[path = "common/numbers.rs"]
mod numbers;

use numbers::{filled, numbers};

/// Largest difference, relative to values above 1.
const TOLERANCE: f64 = 1e-6;
const SHAPE: [i64; 4] = [4, 3, 16, 16];

/// By name: sum, norm and 8 values of a tensor.
type Samples = BTreeMap<String, Vec<f64>>;

#[derive(Deserialize)]
struct TrainingLoss {
    loss: f64,
    gradients: Samples,
    /// The buffers of the network afterwards.
    statistics: Samples,
}

#[derive(Deserialize)]
struct Reference {
    pgd_l2: Vec<f64>,
    fgsm: Vec<f64>,
    n_fgsm: Vec<f64>,
    trades_attack: Vec<f64>,
    apgd_ce: Vec<f64>,
    apgd_ce_l2: Vec<f64>,
    apgd_dlr: Vec<f64>,
    cw: Vec<f64>,
    fab_t: Vec<f64>,
    fab_t_l2: Vec<f64>,
    square: Vec<f64>,
    square_l2: Vec<f64>,
    smoothed_attack: Vec<f64>,
    smoothed_loss: f64,
    label_smoothing: TrainingLoss,
    trades: TrainingLoss,
    mart: TrainingLoss,
    weight_perturbation: Samples,
    adamw: Samples,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("reference/methods.json")).unwrap()
}

fn network() -> Network {
    let options = (Kind::Double, Device::Cpu);
    let architecture = Architecture::WideResnet { depth: 10, width: 1 };
    let network = Network::new(&architecture.into(), [3, 16, 16], 10, 0, options).unwrap();
    let state = network.state().into_iter().enumerate();
    let state =
        state.map(|(stream, (name, tensor))| (name.clone(), filled(stream as u32, &name, &tensor.size())));
    network.load_state(state.collect::<Vec<_>>()).unwrap();
    network
}

fn images() -> Tensor {
    (numbers(1000, &SHAPE) + 1.0) / 2.0
}

fn noise() -> Tensor {
    numbers(1001, &SHAPE)
}

fn labels() -> Tensor {
    Tensor::from_slice(&[0_i64, 7, 4, 1])
}

fn adversarial(reference: &Reference) -> Tensor {
    Tensor::from_slice(&reference.trades_attack).view(SHAPE)
}

fn set(norm: Norm, epsilon: f64) -> PerturbationSet {
    PerturbationSet { norm, epsilon }
}

fn objective(json: serde_json::Value) -> Objective {
    serde_json::from_value(json).unwrap()
}

fn assert_close(context: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "{context}[{index}]: {a} instead of {b}");
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().flatten(0, -1)).unwrap()
}

fn assert_samples(context: &str, found: Vec<(String, Tensor)>, expected: &Samples) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (name, tensor) in found {
        let flat = tensor.detach().flatten(0, -1);
        let count = flat.numel() as i64;
        let picked = (0..8).map(|j| flat.double_value(&[j * 2_654_435_761 % count]));
        let sums = [flat.sum(Kind::Double), flat.norm()].map(|t| t.double_value(&[]));
        let found: Vec<f64> = sums.into_iter().chain(picked).collect();
        assert_close(&format!("{context} of {name}"), &found, &expected[&name]);
    }
}

#[test]
fn pgd_in_l2_matches_pytorch() {
    let (network, labels) = (network(), labels());
    let parameters = PgdParameters { perturbations: set(Norm::L2, 0.8), step_size: 0.3, steps: 5 };
    let loss = |x: &Tensor| summed_cross_entropy(&network.forward(x, Mode::Eval)?, &labels);
    let found =
        network.with_frozen_weights(|| pgd(&loss, &images(), &parameters, &(noise() * 0.05))).unwrap();
    assert_close("PGD in ℓ2", &values(&found), &reference().pgd_l2);
    let lengths = (found - images()).flatten(1, -1).norm_scalaropt_dim(2.0, [1], false);
    assert!(lengths.max().double_value(&[]) <= 0.8 + 1e-12);
}

/// The examples of a training attack from a start, and a check that the statistics of BatchNorm stay.
fn training_attack(network: &Network, attack: &Attack, start_noise: &Tensor) -> Tensor {
    scaled_attack(network, attack, start_noise, 1.0)
}

fn scaled_attack(network: &Network, attack: &Attack, start_noise: &Tensor, step_scale: f64) -> Tensor {
    let threat_model: ThreatModel = serde_json::from_value(json!({"epsilon": "0.1"})).unwrap();
    let (images, labels, objective) = (images(), labels(), Objective::default());
    let config = AttackConfig { attack, objective: &objective, threat_model: &threat_model, step_scale };
    let inputs = AttackInputs { images: &images, labels: &labels, start_noise, noisy_copies: None };
    let before: Vec<Tensor> = network.buffers().iter().map(|(_, buffer)| buffer.copy()).collect();
    let found = generate_adversarial_examples(network, &config, &inputs).unwrap();
    assert!(network.buffers().iter().zip(&before).all(|((_, now), before)| now == before));
    found
}

/// The response to catastrophic overfitting shortens the steps.
#[test]
fn the_scale_multiplies_the_step() {
    let (network, noise) = (network(), noise() * 0.02);
    let attacks: [fn(&str) -> Attack; 3] = [
        |step| Attack::Pgd(serde_json::from_value(json!({"steps": 2, "stepSize": step})).unwrap()),
        |step| Attack::Fgsm(serde_json::from_value(json!({"stepSize": step})).unwrap()),
        |step| Attack::NFgsm(serde_json::from_value(json!({"stepSize": step})).unwrap()),
    ];
    for attack in attacks {
        let half = scaled_attack(&network, &attack("0.04"), &noise, 0.5);
        let short = scaled_attack(&network, &attack("0.02"), &noise, 1.0);
        assert!(half.allclose(&short, 0.0, 1e-12, false), "{:?}", attack("0.04"));
        let full = scaled_attack(&network, &attack("0.04"), &noise, 1.0);
        assert!(!half.allclose(&full, 0.0, 1e-3, false), "{:?}", attack("0.04"));
    }
}

/// Single steps use the statistics of the batch.
#[test]
fn single_step_attacks_match_pytorch() {
    let (network, reference) = (network(), reference());
    let fgsm = Attack::Fgsm(serde_json::from_value(json!({})).unwrap());
    let found = training_attack(&network, &fgsm, &(noise() * 0.1));
    assert_close("FGSM", &values(&found), &reference.fgsm);

    let n_fgsm = Attack::NFgsm(serde_json::from_value(json!({})).unwrap());
    let found = training_attack(&network, &n_fgsm, &(noise() * 0.2));
    assert_close("N-FGSM", &values(&found), &reference.n_fgsm);
    let far = (found - images()).abs().max().double_value(&[]);
    assert!(far > 0.1 && far <= 0.3 + 1e-12, "noise and step together: {far}");
}

#[test]
fn apgd_matches_its_paper() {
    let (network, labels, reference) = (network(), labels(), reference());
    let target = Tensor::from_slice(&[3_i64, 2, 9, 5]);
    for (context, loss, norm, epsilon, expected) in [
        ("APGD-CE", ApgdLoss::CrossEntropy, Norm::Linf, 0.02, &reference.apgd_ce),
        ("APGD-CE in l2", ApgdLoss::CrossEntropy, Norm::L2, 0.2, &reference.apgd_ce_l2),
        ("APGD-T", ApgdLoss::TargetedDlr(target), Norm::Linf, 0.02, &reference.apgd_dlr),
    ] {
        let parameters = ApgdParameters { perturbations: set(norm, epsilon), steps: 40 };
        let logits = |x: &Tensor| network.forward(x, Mode::Eval);
        let found = network
            .with_frozen_weights(|| apgd(&logits, &loss, &images(), &labels, &parameters, &noise()))
            .unwrap();
        assert_close(context, &values(&found), expected);
    }
}

#[test]
fn pgd_on_the_margin_matches_pytorch() {
    let (network, labels) = (network(), labels());
    let parameters = PgdParameters { perturbations: set(Norm::Linf, 0.02), step_size: 0.005, steps: 10 };
    let loss = |x: &Tensor| margins(&network.forward(x, Mode::Eval)?, &labels)?.f_neg();
    let found =
        network.with_frozen_weights(|| pgd(&loss, &images(), &parameters, &(noise() * 0.02))).unwrap();
    assert_close("PGD on the margin", &values(&found), &reference().cw);
}

/// The classes of each image, the most likely first. The first is used as its label.
fn ranking(network: &Network) -> Tensor {
    network.forward(&images(), Mode::Eval).unwrap().argsort(1, true)
}

#[test]
fn fab_matches_its_paper() {
    let (network, reference) = (network(), reference());
    let (label, target) = (ranking(&network).select(1, 0), ranking(&network).select(1, 1));
    for (norm, epsilon, expected) in
        [(Norm::Linf, 0.05, &reference.fab_t), (Norm::L2, 1.0, &reference.fab_t_l2)]
    {
        let parameters = FabParameters { perturbations: set(norm, epsilon), steps: 20 };
        let logits = |x: &Tensor| network.forward(x, Mode::Eval);
        let found =
            network.with_frozen_weights(|| fab_t(&logits, &images(), &label, &target, &parameters)).unwrap();
        assert!(found.ne_tensor(&images()).any().int64_value(&[]) == 1, "{norm:?}: nothing was found");
        assert_close(&format!("FAB-T in {norm:?}"), &values(&found), expected);
    }
}

#[test]
fn square_matches_its_paper() {
    let (network, reference) = (network(), reference());
    let label = ranking(&network).select(1, 0);
    for (norm, epsilon, expected) in
        [(Norm::Linf, 0.02, &reference.square), (Norm::L2, 0.4, &reference.square_l2)]
    {
        let parameters = SquareParameters { perturbations: set(norm, epsilon), queries: 60 };
        let logits = |x: &Tensor| network.forward(x, Mode::Eval);
        let streams = (0..SHAPE[0]).map(|image| Stream::square(7, "square", image as u64, 0)).collect();
        let found = square(&logits, &images(), &label, &parameters, streams).unwrap();
        assert_close(&format!("Square in {norm:?}"), &values(&found), expected);
    }
}

#[test]
fn trades_maximises_the_divergence() {
    let attack = Attack::Pgd(serde_json::from_value(json!({"steps": 4, "stepSize": "0.04"})).unwrap());
    let threat_model: ThreatModel = serde_json::from_value(json!({"epsilon": "0.1"})).unwrap();
    let trades = objective(json!({"trades": {}}));
    let noise = noise() * 0.001;
    let config =
        AttackConfig { attack: &attack, objective: &trades, threat_model: &threat_model, step_scale: 1.0 };
    let (images, labels) = (images(), labels());
    let inputs = AttackInputs { images: &images, labels: &labels, start_noise: &noise, noisy_copies: None };
    let found = generate_adversarial_examples(&network(), &config, &inputs).unwrap();
    assert_close("TRADES attack", &values(&found), &reference().trades_attack);
}

#[test]
fn attack_and_loss_of_the_smoothed_network_match_pytorch() {
    let (network, labels, reference) = (network(), labels(), reference());
    let attack = Attack::Pgd(serde_json::from_value(json!({"steps": 4, "stepSize": "0.2"})).unwrap());
    let threat_model: ThreatModel = serde_json::from_value(json!({"norm": "L2", "epsilon": "0.8"})).unwrap();
    let objective = Objective::default();
    let copies = NoisyCopies::new(3, numbers(1002, &[12, 3, 16, 16]) * 0.25);
    let config =
        AttackConfig { attack: &attack, objective: &objective, threat_model: &threat_model, step_scale: 1.0 };
    let (images, start) = (images(), noise() * 0.01);
    let inputs =
        AttackInputs { images: &images, labels: &labels, start_noise: &start, noisy_copies: Some(&copies) };
    let found = generate_adversarial_examples(&network, &config, &inputs).unwrap();
    assert_close("smoothed attack", &values(&found), &reference.smoothed_attack);

    let (noisy, labels) = (copies.add_noise(&found).unwrap(), copies.labels(&labels).unwrap());
    let loss = objective::loss(&network, &objective, Mode::Train, &noisy, &noisy, &labels, 1.0 / 12.0);
    assert_close("smoothed loss", &[loss.unwrap().double_value(&[])], &[reference.smoothed_loss]);
}

#[test]
fn objectives_and_gradients_match_pytorch() {
    let reference = reference();
    let adversarial = adversarial(&reference);
    for (json, expected) in [
        (json!({"crossEntropy": {"labelSmoothing": 0.1}}), &reference.label_smoothing),
        (json!({"trades": {"beta": 6.0}}), &reference.trades),
        (json!({"mart": {"beta": 5.0}}), &reference.mart),
    ] {
        let (network, context) = (network(), json.to_string());
        let (images, labels) = (images(), labels());
        let loss =
            objective::loss(&network, &objective(json), Mode::Train, &images, &adversarial, &labels, 0.25)
                .unwrap();
        assert_close(&context, &[loss.double_value(&[])], &[expected.loss]);
        loss.f_backward().unwrap();
        let gradients = network.parameters().into_iter().map(|(name, p)| (name, p.grad())).collect();
        assert_samples(&context, gradients, &expected.gradients);
        let buffers = network.buffers().into_iter();
        let buffers = buffers.map(|(name, buffer)| (name, buffer.to_kind(Kind::Double))).collect();
        assert_samples(&context, buffers, &expected.statistics);
    }
}

#[test]
fn awp_perturbs_weights_and_restores_them_exactly() {
    let (reference, network) = (reference(), network());
    let before: Vec<Tensor> = network.parameters().into_iter().map(|(_, p)| p.detach().copy()).collect();
    let adversarial = adversarial(&reference);
    let cross_entropy = Objective::default();
    let labels = labels();
    let mode = Mode::TrainFrozenStatistics;
    let loss =
        objective::loss(&network, &cross_entropy, mode, &adversarial, &adversarial, &labels, 0.25).unwrap();
    let perturbed = weight_perturbation::perturb(&network.parameters(), &loss, 0.01).unwrap();
    assert_samples("AWP", network.parameters(), &reference.weight_perturbation);
    assert!(network.parameters().iter().all(|(_, p)| !p.grad().defined() && p.requires_grad()));
    perturbed.restore().unwrap();
    assert!(network.parameters().iter().zip(&before).all(|((_, now), before)| now == before));
}

#[test]
fn adam_w_matches_pytorch() {
    let network = network();
    let spec = json!({"adamW": {"learningRate": 1.0, "beta2": 0.99, "weightDecay": 0.05}});
    let spec = serde_json::from_value(spec).unwrap();
    let mut optimizer = Optimizer::new(network.parameters(), &spec).unwrap();
    for (number, learning_rate) in [0.01, 0.02, 0.005].into_iter().enumerate() {
        optim::zero_gradients(&network.parameters()).unwrap();
        let (images, labels) = (images(), labels());
        let objective = Objective::default();
        let loss = objective::loss(&network, &objective, Mode::Train, &images, &images, &labels, 0.25);
        loss.unwrap().f_backward().unwrap();
        optimizer.step(learning_rate, number as u64 + 1).unwrap();
    }
    assert_samples("AdamW", network.parameters(), &reference().adamw);
}
