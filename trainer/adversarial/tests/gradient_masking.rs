//! Networks with masked gradients: AutoAttack breaks them or warns that its result may be overestimated.

use std::{cell::Cell, ops::ControlFlow};

use datjob_adversarial::{
    attack::{ApgdParameters, FabParameters, PerturbationSet, PgdParameters, SquareParameters},
    evaluate::{
        ClassCounts, Classifier, Counts, EvalAttack, Evaluation, EvaluationProgress, Method, NoUnitResults,
        evaluate_classifier, sanity_warnings,
    },
    model::{Mode, Network},
    shard::Shard,
    tensors::float_batch,
};
use datjob_api::training::{Architecture, Norm};
use datjob_data::{Images, random::Stream};
use tch::{Device, Kind, TchError, Tensor, no_grad};

const EPSILON: f64 = 0.02;
const PERTURBATIONS: PerturbationSet = PerturbationSet { norm: Norm::Linf, epsilon: EPSILON };
const IMAGES: usize = 100;

/// A network with a defence.
struct Defended<D>(Network, D);

impl<D: Fn(&Network, &Tensor) -> Result<Tensor, TchError>> Classifier for Defended<D> {
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        (self.1)(&self.0, images)
    }
}

fn network() -> Network {
    Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, 3, (Kind::Float, Device::Cpu)).unwrap()
}

/// AutoAttack with a small budget.
fn auto_attack() -> EvalAttack {
    let mut attack = EvalAttack::auto_attack(PERTURBATIONS, 10);
    let (perturbations, steps) = (PERTURBATIONS, 10);
    for stage in &mut attack.stages {
        stage.method = match stage.method {
            Method::ApgdCe(_) => Method::ApgdCe(ApgdParameters { perturbations, steps }),
            Method::ApgdT(_) => Method::ApgdT(ApgdParameters { perturbations, steps }),
            Method::FabT(_) => Method::FabT(FabParameters { perturbations, steps }),
            Method::Square(_) => Method::Square(SquareParameters { perturbations, queries: 300 }),
            ref other => panic!("not a stage of AutoAttack: {other:?}"),
        };
    }
    attack
}

/// Evaluates PGD-10 and AutoAttack on random images. Their labels are the predictions of the classifier.
fn evaluate_defence<D: Fn(&Network, &Tensor) -> Result<Tensor, TchError>>(
    defence: D,
) -> (Counts, Vec<String>) {
    let classifier = Defended(network(), defence);
    let mut stream = Stream::split(0);
    let pixels: Vec<u8> = (0..IMAGES * 784).map(|_| stream.below(256) as u8).collect();
    let unlabelled = Images::new([1, 28, 28], pixels.clone(), vec![0; IMAGES]);
    let indices: Vec<usize> = (0..IMAGES).collect();
    let (batch, _) = float_batch(&unlabelled.read(&indices, None).unwrap(), Device::Cpu).unwrap();
    let classes = no_grad(|| classifier.logits(&batch).unwrap().argmax(1, false));
    let classes = Vec::<i64>::try_from(classes).unwrap().into_iter().map(|class| class as u16);
    let images = Images::new([1, 28, 28], pixels, classes.collect());
    let pgd = PgdParameters { perturbations: PERTURBATIONS, step_size: EPSILON / 4.0, steps: 10 };
    let attacks = [EvalAttack::single("pgd-10", Method::Pgd(pgd), 1), auto_attack()];
    let evaluation = Evaluation {
        images: &images,
        indices: &indices,
        classes: 10,
        seed: 0,
        attacks: &attacks,
        device: Device::Cpu,
    };
    let counts = classifier
        .0
        .with_frozen_weights(|| {
            let mut ignore = |_: EvaluationProgress<'_>| ControlFlow::Continue(());
            evaluate_classifier(&classifier, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut ignore)
        })
        .unwrap();
    let warnings = sanity_warnings(&counts, 1, &attacks[1]);
    (counts, warnings)
}

#[test]
fn an_undefended_network_causes_no_warning() {
    let (counts, warnings) = evaluate_defence(|network, x| network.forward(x, Mode::Eval));
    assert!(counts.robust(0) < 60 && counts.robust(1) < 40, "{counts:?}");
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn autoattack_breaks_saturated_logits() {
    let (counts, warnings) = evaluate_defence(|network, x| network.forward(x, Mode::Eval)?.f_mul_scalar(1e6));
    assert!(counts.robust(0) > 90, "PGD is fooled: {counts:?}");
    assert!(counts.robust(1) < 40, "AutoAttack is not: {counts:?}");
    assert!(
        warnings[0].starts_with("Zero gradients: the gradient of the cross-entropy is zero at "),
        "{warnings:?}"
    );
}

#[test]
fn square_breaks_a_layer_without_gradient() {
    let (counts, warnings) = evaluate_defence(|network, x| {
        let levels = 64.0;
        network.forward(&x.f_mul_scalar(levels)?.f_round()?.f_div_scalar(levels)?, Mode::Eval)
    });
    let robust: Vec<u64> = counts.attacks[1].iter().map(ClassCounts::sum).collect();
    assert!(counts.robust(0) > 50, "PGD is fooled: {counts:?}");
    assert!(robust[3] < robust[2], "Square is not: {robust:?}");
    let zero = "Zero gradients: the gradient of the cross-entropy is zero at 100 of the 100";
    assert!(warnings.iter().any(|warning| warning.starts_with(zero)), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.starts_with("Square's gain")), "{warnings:?}");
}

#[test]
fn warns_of_a_randomised_network() {
    let calls = Cell::new(0);
    let (_, warnings) = evaluate_defence(|network, x| {
        calls.set(calls.get() + 1);
        let noise = 0.01 * f64::from(calls.get() % 7);
        network.forward(&(x + noise), Mode::Eval)
    });
    assert!(warnings[0].starts_with("Randomised network: the logits of 100 of 100"), "{warnings:?}");
}
