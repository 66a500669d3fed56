//! The state of a network, its initial weights, and the freezing of weights during attacks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use datjob_adversarial::{
    attack::{AttackConfig, AttackInputs, generate_adversarial_examples},
    model::{Mode, ModelError, Network},
    tensors::training_noise,
};
use datjob_api::training::{Architecture, ThreatModel, TrainingAttack};
use datjob_data::random::Start;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn small_cnn(seed: u64) -> Network {
    Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, seed, F32).unwrap()
}

fn resnet18(seed: u64) -> Network {
    Network::new(&Architecture::Resnet18.into(), [3, 32, 32], 10, seed, F32).unwrap()
}

/// RobustBench's names (its `ResNet` with `BasicBlock` and [2, 2, 2, 2] blocks) and the shapes of ResNet-18.
fn robustbench_resnet18() -> Vec<(String, Vec<i64>)> {
    fn batch_norm(name: &str, channels: i64) -> Vec<(String, Vec<i64>)> {
        let parts = ["weight", "bias", "running_mean", "running_var"];
        let mut all: Vec<_> = parts.map(|part| (format!("{name}.{part}"), vec![channels])).into();
        all.push((format!("{name}.num_batches_tracked"), vec![]));
        all
    }
    let mut all = vec![("conv1.weight".to_owned(), vec![64, 3, 3, 3])];
    all.extend(batch_norm("bn1", 64));
    let mut from = 64;
    for (layer, to) in [("layer1", 64), ("layer2", 128), ("layer3", 256), ("layer4", 512)] {
        for block in [format!("{layer}.0"), format!("{layer}.1")] {
            all.push((format!("{block}.conv1.weight"), vec![to, from, 3, 3]));
            all.extend(batch_norm(&format!("{block}.bn1"), to));
            all.push((format!("{block}.conv2.weight"), vec![to, to, 3, 3]));
            all.extend(batch_norm(&format!("{block}.bn2"), to));
            if from != to {
                all.push((format!("{block}.shortcut.0.weight"), vec![to, from, 1, 1]));
                all.extend(batch_norm(&format!("{block}.shortcut.1"), to));
            }
            from = to;
        }
    }
    all.extend([("linear.weight".to_owned(), vec![10, 512]), ("linear.bias".to_owned(), vec![10])]);
    all
}

#[test]
fn resnet18_has_the_names_and_shapes_of_robustbench() {
    let network = resnet18(0);
    let state: Vec<_> = network.state().into_iter().map(|(name, t)| (name, t.size())).collect();
    assert_eq!(state, robustbench_resnet18());
    let parameters: usize = network.parameters().iter().map(|(_, t)| t.numel()).sum();
    assert_eq!(parameters, 11_173_962);
}

#[test]
fn networks_accept_images_of_28_and_32_pixels() {
    for architecture in [Architecture::SmallCnn, Architecture::Resnet18] {
        for (shape, classes) in [([1, 28, 28], 10), ([3, 32, 32], 100)] {
            let network = Network::new(&architecture.into(), shape, classes, 0, F32).unwrap();
            let images = Tensor::zeros([&[2], &shape[..]].concat(), F32);
            assert_eq!(network.forward(&images, Mode::Eval).unwrap().size(), [2, classes]);
        }
    }
}

#[test]
fn initial_weights_match_pytorch_defaults() {
    let state: std::collections::BTreeMap<_, _> = resnet18(0).state().into_iter().collect();
    let weight = &state["layer3.0.conv1.weight"];
    let bound = 1.0 / (128.0_f64 * 9.0).sqrt();
    assert!((weight.abs().max().double_value(&[]) - bound).abs() < 1e-4 * bound);
    let deviation = weight.std(true).double_value(&[]);
    assert!((deviation - bound / 3.0_f64.sqrt()).abs() < 0.01 * bound);
    assert!(weight.mean(Kind::Double).double_value(&[]).abs() < 0.01 * bound);
    for (name, value) in
        [("bn1.weight", 1.0), ("bn1.bias", 0.0), ("bn1.running_mean", 0.0), ("bn1.running_var", 1.0)]
    {
        assert_eq!(state[name], Tensor::full([64], value, F32), "{name}");
    }
}

#[test]
fn the_seed_determines_the_initial_weights() {
    let equal = |a: &Network, b: &Network| {
        a.state().iter().zip(&b.state()).all(|((_, left), (_, right))| left == right)
    };
    tch::manual_seed(1);
    let first = small_cnn(5);
    tch::manual_seed(2);
    assert!(equal(&first, &small_cnn(5)), "libtorch's generator must have no effect");
    assert!(!equal(&first, &small_cnn(6)));
}

#[test]
fn a_state_can_be_loaded_into_another_network() {
    let (from, to) = (resnet18(1), resnet18(2));
    let _ = from.forward(&Tensor::rand([2, 3, 32, 32], F32), Mode::Train).unwrap();
    to.load_state(from.state()).unwrap();
    for ((name, left), (_, right)) in from.state().iter().zip(&to.state()) {
        assert_eq!(left, right, "{name}");
        assert_eq!(right.requires_grad(), !name.contains("running") && !name.contains("tracked"), "{name}");
    }
}

#[test]
fn rejects_a_state_that_does_not_fit_without_changes() {
    let network = small_cnn(0);
    let before: Vec<Tensor> = network.state().into_iter().map(|(_, tensor)| tensor.copy()).collect();
    let error_after = |change: fn(&mut Vec<(String, Tensor)>)| -> ModelError {
        let mut state = small_cnn(1).state();
        change(&mut state);
        let error = network.load_state(state).unwrap_err();
        assert!(network.state().iter().zip(&before).all(|((_, now), before)| now == before));
        error
    };
    assert_eq!(
        error_after(|state| drop(state.remove(3))).to_string(),
        "missing tensor conv2.bias in the state dict"
    );
    assert_eq!(
        error_after(|state| state.push(("fc3.bias".to_owned(), Tensor::zeros([1], F32)))).to_string(),
        "unexpected tensor fc3.bias in the state dict"
    );
    assert_eq!(
        error_after(|state| state.push(("fc2.bias".to_owned(), Tensor::zeros([1], F32)))).to_string(),
        "duplicate tensor fc2.bias in the state dict"
    );
    assert_eq!(
        error_after(|state| state[1].1 = Tensor::zeros([17], F32)).to_string(),
        "tensor conv1.bias in the state dict: expected shape [16], got [17]"
    );
}

#[test]
fn weights_are_unfrozen_after_return_error_and_panic() {
    let network = small_cnn(0);
    let live = || network.parameters().iter().filter(|(_, tensor)| tensor.requires_grad()).count();
    assert_eq!(network.with_frozen_weights(live), 0);
    assert_eq!(live(), 8);
    let failed: Result<(), ModelError> =
        network.with_frozen_weights(|| Err(ModelError::Missing("x".to_owned()))?);
    assert!(failed.is_err());
    assert_eq!(live(), 8);
    assert!(catch_unwind(AssertUnwindSafe(|| network.with_frozen_weights(|| panic!("as a test")))).is_err());
    assert_eq!(live(), 8);
    network.with_frozen_weights(|| {
        network.with_frozen_weights(|| ());
        assert_eq!(live(), 0, "an inner call must not unfreeze the weights");
    });
    assert_eq!(live(), 8);
}

#[test]
fn training_attacks_stay_in_the_ball_and_do_not_change_the_network() {
    let network = resnet18(0);
    let images = Tensor::rand([4, 3, 32, 32], F32);
    let labels = Tensor::from_slice(&[0_i64, 1, 2, 3]);
    let threat_model: ThreatModel = serde_json::from_value(serde_json::json!({"epsilon": "8/255"})).unwrap();
    let epsilon = threat_model.epsilon.value();
    let objective = datjob_api::training::Objective::default();
    let noise = training_noise(0, 0, &[0, 1, 2, 3], [3, 32, 32], Start::Linf { radius: epsilon }).unwrap();
    let before: Vec<Tensor> = network.state().into_iter().map(|(_, tensor)| tensor.copy()).collect();
    for attack in [serde_json::json!({"fgsm": {}}), serde_json::json!({"pgd": {"steps": 3}})] {
        let attack = serde_json::from_value::<TrainingAttack>(attack).unwrap().method;
        let config = AttackConfig {
            attack: &attack,
            objective: &objective,
            threat_model: &threat_model,
            step_scale: 1.0,
        };
        let inputs =
            AttackInputs { images: &images, labels: &labels, start_noise: &noise, noisy_copies: None };
        let adversarial = tch::no_grad(|| generate_adversarial_examples(&network, &config, &inputs)).unwrap();
        assert!(!adversarial.requires_grad());
        let far = (&adversarial - &images).to_kind(Kind::Double).abs().max().double_value(&[]);
        assert!(far <= epsilon + 0.5_f64.powi(24), "{far}");
        assert!(far >= 0.99 * epsilon, "the attack must move a pixel to the border");
        assert!(adversarial.min().double_value(&[]) >= 0.0 && adversarial.max().double_value(&[]) <= 1.0);
    }
    assert!(network.state().iter().zip(&before).all(|((_, now), before)| now == before));
}

#[test]
fn pretrained_weights_for_other_classes_keep_the_initial_last_layer() {
    for architecture in
        ["small-cnn", "resnet18", "resnet34", "resnet50", "preact-resnet18", "wide-resnet-10-1"]
    {
        let model = architecture.parse::<Architecture>().unwrap().into();
        let network =
            |classes: i64, seed: u64| Network::new(&model, [3, 32, 32], classes, seed, F32).unwrap();
        let trained = network(10, 1);
        for (classes, new_head, keeps_initial_head) in
            [(10, false, false), (10, true, true), (100, false, true)]
        {
            let (tuned, initial) = (network(classes, 2), network(classes, 2));
            assert_eq!(tuned.load_pretrained(trained.state(), new_head).unwrap(), keeps_initial_head);
            let head = tuned.parameters().len() - 2;
            let own = initial.parameters();
            for (index, ((name, tensor), (_, other))) in
                tuned.parameters().iter().zip(trained.parameters()).enumerate()
            {
                let expected = if keeps_initial_head && index >= head { &own[index].1 } else { &other };
                assert_eq!(tensor, expected, "{architecture}: {name}");
            }
            assert_eq!(tuned.parameters()[head].1.size()[0], classes);
        }
        let mut incomplete = trained.state();
        drop(incomplete.remove(0));
        let error = network(100, 2).load_pretrained(incomplete, false).unwrap_err();
        assert!(matches!(error, ModelError::Missing(_)), "{error}");
    }
}
