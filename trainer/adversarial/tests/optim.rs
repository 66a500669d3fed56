//! Optimizers: their steps, and their state in a resumed run.

use datjob_adversarial::{
    optim::{self, Optimizer},
    state_dict::StateDict,
};
use datjob_api::training;
use tch::{Device, Kind, Tensor, no_grad};

fn parameters() -> StateDict {
    let values =
        |name: &str, values: &[f64]| (name.to_owned(), Tensor::from_slice(values).set_requires_grad(true));
    vec![values("a", &[1.0, -2.0]), values("b", &[0.5])]
}

fn step(sgd: &mut Optimizer, parameters: &[(String, Tensor)], target: f64) {
    optim::zero_gradients(parameters).unwrap();
    let losses = parameters.iter().map(|(_, p)| (p - target).square().sum(Kind::Double));
    losses.reduce(|left, right| left + right).unwrap().backward();
    sgd.step(0.1, 1).unwrap();
}

fn copies(tensors: StateDict) -> StateDict {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_run() {
    let spec = training::Optimizer::default();
    let whole = parameters();
    let mut sgd = Optimizer::new(whole.clone_handles(), &spec).unwrap();
    for target in [3.0, -1.0] {
        step(&mut sgd, &whole, target);
    }
    let (saved_values, saved_state) = (copies(whole.clone_handles()), copies(sgd.state()));
    for target in [0.5, 2.0] {
        step(&mut sgd, &whole, target);
    }

    let resumed = parameters();
    for ((_, value), (_, saved)) in resumed.iter().zip(&saved_values) {
        no_grad(|| value.shallow_clone().copy_(saved));
    }
    let mut sgd = Optimizer::new(resumed.clone_handles(), &spec).unwrap();
    sgd.load_state(saved_state).unwrap();
    for target in [0.5, 2.0] {
        step(&mut sgd, &resumed, target);
    }
    for ((name, left), (_, right)) in whole.iter().zip(&resumed) {
        assert_eq!(left, right, "{name}");
    }
}

trait CloneHandles {
    fn clone_handles(&self) -> StateDict;
}

impl CloneHandles for StateDict {
    fn clone_handles(&self) -> StateDict {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }
}

#[test]
fn the_state_has_its_names_before_the_first_step() {
    let sgd = Optimizer::new(parameters(), &training::Optimizer::default()).unwrap();
    let names: Vec<String> = sgd.state().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["momentum.a", "momentum.b"]);
    let other = vec![("momentum.a".to_owned(), Tensor::zeros([2], (Kind::Double, Device::Cpu)))];
    assert_eq!(sgd.load_state(other).unwrap_err().to_string(), "missing tensor momentum.b in the state dict");
}

#[test]
fn a_parameter_without_gradient_does_not_change() {
    let parameters = parameters();
    let before = copies(parameters.clone_handles());
    let mut sgd = Optimizer::new(parameters.clone_handles(), &training::Optimizer::default()).unwrap();
    parameters[0].1.sum(Kind::Double).backward();
    sgd.step(0.1, 1).unwrap();
    assert_ne!(parameters[0].1, before[0].1);
    assert_eq!(parameters[1].1, before[1].1);
}

/// A two-layer network's parameters: weights, and biases that start at 0.
const LAYERS: [(&str, &[i64], &[f64]); 4] = [
    ("fc1.weight", &[2, 2], &[1.0, -2.0, 0.5, 0.25]),
    ("fc1.bias", &[2], &[0.0, 0.0]),
    ("fc2.weight", &[1, 2], &[30.0, -40.0]),
    ("fc2.bias", &[1], &[0.0]),
];
/// Gradients of two steps for each parameter. The last gradient of the second step is zero.
const GRADIENTS: [[&[f64]; 4]; 2] = [
    [&[0.3, -0.1, 0.2, 0.4], &[0.5, -0.25], &[2.0, 1.0], &[-0.125]],
    [&[-0.2, 0.6, 0.1, 0.3], &[0.1, 0.7], &[-1.0, 3.0], &[0.0]],
];

/// The parameters after both steps of an optimizer.
fn after_two_steps(optimizer: &str) -> Vec<Vec<f64>> {
    let parameters: StateDict = LAYERS
        .iter()
        .map(|(name, shape, values)| {
            ((*name).to_owned(), Tensor::from_slice(values).view(*shape).set_requires_grad(true))
        })
        .collect();
    let spec = serde_json::from_str(optimizer).unwrap();
    let mut optimizer = Optimizer::new(parameters.clone_handles(), &spec).unwrap();
    for (step, gradients) in GRADIENTS.iter().enumerate() {
        optim::zero_gradients(&parameters).unwrap();
        for ((_, parameter), gradient) in parameters.iter().zip(gradients) {
            let gradient = Tensor::from_slice(gradient).view_as(parameter);
            (parameter * gradient).sum(Kind::Double).backward();
        }
        optimizer.step([0.1, 0.05][step], step as u64 + 1).unwrap();
    }
    parameters.iter().map(|(_, p)| Vec::try_from(p.detach().flatten(0, -1)).unwrap()).collect()
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn assert_all_close(context: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    for ((name, ..), (found, expected)) in LAYERS.iter().zip(found.iter().zip(expected)) {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{context}, {name}: {found:?} instead of {expected:?}");
        }
    }
}

/// LAMB computed with plain numbers.
fn lamb(all: bool) -> Vec<Vec<f64>> {
    let by_hand = |layer: usize| {
        let (_, shape, values) = LAYERS[layer];
        let mut weights = values.to_vec();
        let (mut m, mut v) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        for (step, rate) in [0.1, 0.05].into_iter().enumerate() {
            let t = step as i32 + 1;
            let adapted = all || shape.len() > 1;
            let decay = if adapted { 0.01 } else { 0.0 };
            let mut u = vec![0.0; values.len()];
            for i in 0..values.len() {
                let g = GRADIENTS[step][layer][i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (m_hat, v_hat) = (m[i] / (1.0 - 0.9_f64.powi(t)), v[i] / (1.0 - 0.999_f64.powi(t)));
                u[i] = m_hat / (v_hat.sqrt() + 1e-6) + decay * weights[i];
            }
            let (w, d) = (length(&weights).min(10.0), length(&u));
            let trust = if adapted && w > 0.0 && d > 0.0 { w / d } else { 1.0 };
            weights.iter_mut().zip(&u).for_each(|(w, u)| *w -= rate * trust * u);
        }
        weights
    };
    (0..4).map(by_hand).collect()
}

#[test]
fn lamb_matches_its_paper_and_moves_zero_initialised_parameters() {
    let found = after_two_steps(r#"{"lamb": {"weightDecay": 0.01}}"#);
    assert_all_close("LAMB", &found, &lamb(false));
    let paper = after_two_steps(r#"{"lamb": {"weightDecay": 0.01, "adaptation": "Paper"}}"#);
    assert_all_close("LALR", &paper, &lamb(true));
    assert!(paper[1].iter().chain(&paper[3]).all(|value| value.abs() > 1e-3), "{paper:?}");
    assert_ne!(found[1], paper[1], "after the first step the norm of a bias is not zero");
}

/// LARS computed with plain numbers.
fn lars(all: bool) -> Vec<Vec<f64>> {
    let by_hand = |layer: usize| {
        let (_, shape, values) = LAYERS[layer];
        let (mut weights, mut velocity) = (values.to_vec(), vec![0.0; values.len()]);
        for (step, rate) in [0.1, 0.05].into_iter().enumerate() {
            let g = GRADIENTS[step][layer];
            let (w, norm) = (length(&weights), length(g));
            let adapted = all || shape.len() > 1;
            let decay = if adapted { 0.01 } else { 0.0 };
            let local = if adapted && w > 0.0 && norm > 0.0 { 0.02 * w / (norm + 0.01 * w) } else { 1.0 };
            for i in 0..values.len() {
                velocity[i] = 0.9 * velocity[i] + rate * local * (g[i] + decay * weights[i]);
                weights[i] -= velocity[i];
            }
        }
        weights
    };
    (0..4).map(by_hand).collect()
}

#[test]
fn lars_matches_its_paper_and_moves_zero_initialised_parameters() {
    let found = after_two_steps(r#"{"lars": {"weightDecay": 0.01, "trust": 0.02}}"#);
    assert_all_close("LARS", &found, &lars(false));
    let paper = after_two_steps(r#"{"lars": {"weightDecay": 0.01, "trust": 0.02, "adaptation": "Paper"}}"#);
    assert_all_close("LARS for all parameters", &paper, &lars(true));
    assert!(paper[1].iter().all(|value| value.abs() > 1e-4), "zeros move: {paper:?}");
    assert_ne!(found[1], paper[1], "after the first step the norm of a bias is not zero");
}

#[test]
fn every_state_can_be_loaded_into_another_optimizer() {
    for spec in [r#"{"sgd": {}}"#, r#"{"adamW": {}}"#, r#"{"lamb": {}}"#, r#"{"lars": {}}"#] {
        let spec = serde_json::from_str(spec).unwrap();
        let whole = parameters();
        let mut optimizer = Optimizer::new(whole.clone_handles(), &spec).unwrap();
        for (_, parameter) in &whole {
            parameter.square().sum(Kind::Double).backward();
        }
        optimizer.step(0.1, 1).unwrap();
        let other = Optimizer::new(parameters(), &spec).unwrap();
        other.load_state(copies(optimizer.state())).unwrap();
        for ((name, left), (_, right)) in optimizer.state().iter().zip(other.state()) {
            assert_eq!(left, &right, "{name}");
        }
    }
}
