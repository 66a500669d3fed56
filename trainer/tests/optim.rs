//! The optimizer's state: a run that was resumed goes on as if it had not stopped.

use datjob_api::training;
use datjob_trainer::optim::Sgd;
use tch::{Device, Kind, Tensor, no_grad};

fn parameters() -> Vec<(String, Tensor)> {
    let values =
        |name: &str, values: &[f64]| (name.to_owned(), Tensor::from_slice(values).set_requires_grad(true));
    vec![values("a", &[1.0, -2.0]), values("b", &[0.5])]
}

fn step(sgd: &mut Sgd, parameters: &[(String, Tensor)], target: f64) {
    sgd.zero_gradients().unwrap();
    let losses = parameters.iter().map(|(_, p)| (p - target).square().sum(Kind::Double));
    losses.reduce(|left, right| left + right).unwrap().backward();
    sgd.step(0.1).unwrap();
}

fn copies(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

#[test]
fn a_resumed_run_goes_on_as_if_it_had_not_stopped() {
    let spec = training::Sgd::default();
    let whole = parameters();
    let mut sgd = Sgd::new(whole.clone_handles(), &spec).unwrap();
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
    let mut sgd = Sgd::new(resumed.clone_handles(), &spec).unwrap();
    sgd.load_state(saved_state).unwrap();
    for target in [0.5, 2.0] {
        step(&mut sgd, &resumed, target);
    }
    for ((name, left), (_, right)) in whole.iter().zip(&resumed) {
        assert_eq!(left, right, "{name}");
    }
}

trait CloneHandles {
    fn clone_handles(&self) -> Vec<(String, Tensor)>;
}

impl CloneHandles for Vec<(String, Tensor)> {
    fn clone_handles(&self) -> Vec<(String, Tensor)> {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }
}

#[test]
fn the_state_names_its_parameters_before_the_first_step_too() {
    let sgd = Sgd::new(parameters(), &training::Sgd::default()).unwrap();
    let names: Vec<String> = sgd.state().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["momentum.a", "momentum.b"]);
    let other = vec![("momentum.a".to_owned(), Tensor::zeros([2], (Kind::Double, Device::Cpu)))];
    assert_eq!(
        sgd.load_state(other).unwrap_err().to_string(),
        "the state has no momentum.b, which is needed"
    );
}

#[test]
fn a_parameter_without_gradient_stays() {
    let parameters = parameters();
    let before = copies(parameters.clone_handles());
    let mut sgd = Sgd::new(parameters.clone_handles(), &training::Sgd::default()).unwrap();
    parameters[0].1.sum(Kind::Double).backward();
    sgd.step(0.1).unwrap();
    assert_ne!(parameters[0].1, before[0].1);
    assert_eq!(parameters[1].1, before[1].1);
}
