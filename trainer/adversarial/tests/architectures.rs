//! Compares the networks with the classes of RobustBench and torchvision in float64: names and shapes of the state, logits
//! in both modes, gradients. `reference/models.py` generates the expected values; its head describes how.

use std::collections::BTreeMap;

use datjob_adversarial::model::{Mode, Network};
use datjob_api::training::Model;
use serde::Deserialize;
use tch::{Device, Kind, Reduction, Tensor};

#[path = "common/numbers.rs"]
mod numbers;

use numbers::{filled, numbers};

/// Largest difference, relative to values above 1.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    model: Model,
    size: i64,
    classes: i64,
    state: Vec<(String, Vec<i64>)>,
    logits_eval: Vec<f64>,
    logits_train: Vec<f64>,
    gradients: BTreeMap<String, Vec<f64>>,
}

fn assert_close(context: &str, found: &Tensor, expected: &[f64]) {
    let found = Vec::<f64>::try_from(found.detach().flatten(0, -1)).unwrap();
    assert_eq!(found.len(), expected.len(), "{context}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "{context}[{index}]: {a} instead of {b}");
    }
}

/// Sum, norm and 3 values.
fn sample(tensor: &Tensor) -> Tensor {
    let flat = tensor.flatten(0, -1);
    let count = flat.numel() as i64;
    let picked = (0..3).map(|j| flat.get(j * 2_654_435_761 % count));
    Tensor::stack(&[flat.sum(Kind::Double), flat.norm()].into_iter().chain(picked).collect::<Vec<_>>(), 0)
}

#[test]
fn every_architecture_matches_its_reference() {
    let reference: Reference = serde_json::from_str(include_str!("reference/models.json")).unwrap();
    for Case { name, model, size, classes, state, logits_eval, logits_train, gradients } in reference.cases {
        let shape = [3, size, size];
        let mut network = Network::new(&model, shape, classes, 0, (Kind::Double, Device::Cpu)).unwrap();
        let found: Vec<_> = network.state().into_iter().map(|(name, t)| (name, t.size())).collect();
        assert_eq!(found, state, "{name}");
        let tensors = state.iter().enumerate();
        network.load_state(tensors.map(|(i, (n, shape))| (n.clone(), filled(i as u32, n, shape)))).unwrap();
        network.channels_last().unwrap();
        let images = network.prepare_input(&((numbers(1000, &[3, 3, size, size]) + 1.0) / 2.0)).unwrap();
        assert_close(&format!("{name}, eval"), &network.forward(&images, Mode::Eval).unwrap(), &logits_eval);
        let logits = network.forward(&images, Mode::Train).unwrap();
        assert_close(&format!("{name}, train"), &logits, &logits_train);
        let labels = Tensor::from_slice(&[1_i64, 5, 2]);
        logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0).f_backward().unwrap();
        let parameters: BTreeMap<_, _> = network.parameters().into_iter().collect();
        for (parameter, expected) in gradients {
            let gradient = parameters[&parameter].grad();
            assert_close(&format!("{name}, gradient of {parameter}"), &sample(&gradient), &expected);
        }
    }
}
