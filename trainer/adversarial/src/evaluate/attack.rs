//! The attacks of an evaluation, built from the spec.

use datjob_api::training::{DuringAttack, FinalAttack, FinalPgd, Targeted, ThreatModel};
use datjob_data::random::{Start, Stream};
use tch::{TchError, Tensor};

use super::{Classifier, batch::Batch};
use crate::{
    attack::{
        ApgdLoss, ApgdParameters, FabParameters, PerturbationSet, PgdParameters, SquareParameters, apgd,
        fab_t, pgd, square,
    },
    objective::{margins, summed_cross_entropy},
    tensors::evaluation_noise,
};

/// Number of target classes of AutoAttack's targeted attacks.
const AUTO_ATTACK_TARGETS: u32 = 9;
/// Number of steps of AutoAttack's gradient-based attacks.
const AUTO_ATTACK_STEPS: u32 = 100;
/// Number of queries of AutoAttack's Square.
const AUTO_ATTACK_QUERIES: u32 = 5000;

/// An attack of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalAttack {
    /// The name that reports use, for example `pgd-20`.
    pub name: String,
    /// Run in this order, each on the images that are robust under the earlier stages.
    pub stages: Vec<Stage>,
    /// Whether the result is checked for signs of overestimation: see [`super::sanity_warnings`].
    pub sanity_checks: bool,
}

/// A stage of an attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its name in the attack.
    pub name: String,
    /// The attack method.
    pub method: Method,
    /// Number of runs, each from another start or towards another class. A robust image withstands all of them.
    pub runs: u32,
    /// Key of the random numbers. Two stages with the same key begin at the same points.
    pub random_key: String,
}

/// The method of an attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Projected gradient descent on the cross-entropy.
    Pgd(PgdParameters),
    /// Projected gradient descent on the margin of the logits.
    Cw(PgdParameters),
    /// APGD on the cross-entropy.
    ApgdCe(ApgdParameters),
    /// APGD on the targeted difference of logits ratio. The target of run r is the class with the (r + 2)nd largest logit.
    ApgdT(ApgdParameters),
    /// Targeted FAB. The target of run r is the class with the (r + 2)nd largest logit.
    FabT(FabParameters),
    /// Square: random search.
    Square(SquareParameters),
}

impl EvalAttack {
    /// An attack of one stage.
    pub fn single(name: &str, method: Method, runs: u32) -> Self {
        let stage = Stage { name: name.to_owned(), method, runs, random_key: name.to_owned() };
        Self { name: name.to_owned(), stages: vec![stage], sanity_checks: false }
    }

    /// The attack on the validation split.
    pub fn for_validation(spec: &DuringAttack, threat_model: &ThreatModel) -> Self {
        let DuringAttack::Pgd(spec) = spec;
        let perturbations = PerturbationSet::from(threat_model);
        let step_size = spec.step_size(threat_model);
        let parameters = PgdParameters { perturbations, step_size, steps: spec.steps };
        Self::single(&format!("pgd-{}", spec.steps), Method::Pgd(parameters), 1)
    }

    /// An attack on the test set. `classes` is the number of classes.
    pub fn for_test(spec: &FinalAttack, threat_model: &ThreatModel, classes: i64) -> Self {
        let perturbations = PerturbationSet::from(threat_model);
        let pgd = |spec: &FinalPgd| {
            let step_size = spec.step_size(threat_model);
            PgdParameters { perturbations, step_size, steps: spec.steps }
        };
        let apgd = |steps| ApgdParameters { perturbations, steps };
        let targeted = |spec: &Targeted| (spec.steps(), spec.targets());
        let (method, runs) = match spec {
            FinalAttack::Pgd(spec) => (Method::Pgd(pgd(spec)), spec.restarts()),
            FinalAttack::Cw(spec) => (Method::Cw(pgd(spec)), spec.restarts()),
            FinalAttack::ApgdCe(spec) => (Method::ApgdCe(apgd(spec.steps())), spec.restarts()),
            FinalAttack::ApgdT(spec) => {
                let (steps, targets) = targeted(spec);
                (Method::ApgdT(apgd(steps)), targets)
            }
            FinalAttack::FabT(spec) => {
                let (steps, targets) = targeted(spec);
                (Method::FabT(FabParameters { perturbations, steps }), targets)
            }
            FinalAttack::Square(spec) => {
                let queries = spec.queries();
                (Method::Square(SquareParameters { perturbations, queries }), spec.restarts())
            }
            FinalAttack::AutoAttack(_) => return Self::auto_attack(perturbations, classes),
        };
        Self::single(&spec.name(), method, runs)
    }

    /// AutoAttack, version "standard" (Croce and Hein, arXiv 2003.01690, section 6, and its published code).
    pub fn auto_attack(perturbations: PerturbationSet, classes: i64) -> Self {
        let (steps, queries) = (AUTO_ATTACK_STEPS, AUTO_ATTACK_QUERIES);
        let targets = AUTO_ATTACK_TARGETS.min(u32::try_from(classes - 1).unwrap_or(1));
        let apgd = ApgdParameters { perturbations, steps };
        let stages = [
            ("apgd-ce", Method::ApgdCe(apgd), 1),
            ("apgd-t", Method::ApgdT(apgd), targets),
            ("fab-t", Method::FabT(FabParameters { perturbations, steps }), targets),
            ("square", Method::Square(SquareParameters { perturbations, queries }), 1),
        ];
        let stages = stages.map(|(name, method, runs)| Stage {
            name: name.to_owned(),
            method,
            runs,
            random_key: format!("autoattack/{name}"),
        });
        Self { name: "autoattack".to_owned(), stages: stages.into(), sanity_checks: true }
    }
}

impl Method {
    /// Number of passes of the network in a run. Each may include a backward pass; a run ends earlier if no image withstands.
    pub(super) fn iterations(&self) -> u64 {
        match *self {
            Self::Pgd(PgdParameters { steps, .. }) | Self::Cw(PgdParameters { steps, .. }) => steps.into(),
            // The start has one too.
            Self::ApgdCe(ApgdParameters { steps, .. }) | Self::ApgdT(ApgdParameters { steps, .. }) => {
                u64::from(steps) + 1
            }
            // Each step linearises at a point, and checks the next one.
            Self::FabT(FabParameters { steps, .. }) => u64::from(steps) * 2,
            Self::Square(SquareParameters { queries, .. }) => u64::from(queries) + 1,
        }
    }
}

impl Stage {
    /// Generates the adversarial examples of one run. Its start depends on the seed, the stage's key, the image and the run
    /// only.
    pub(super) fn generate(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        seed: u64,
        run: u32,
    ) -> Result<Tensor, TchError> {
        let (images, labels) = (&batch.images, &batch.labels);
        let logits = |x: &Tensor| classifier.logits(x);
        let noise = |start| batch.noise(seed, &self.random_key, run, start);
        // APGD uses only the direction of its start.
        let start_direction =
            |parameters: &ApgdParameters| noise(Start::in_ball(parameters.perturbations.norm, 1.0));
        let start_noise = |parameters: &PgdParameters| {
            noise(Start::in_ball(parameters.perturbations.norm, parameters.perturbations.epsilon))
        };
        let target = || batch.ranking.f_select(1, i64::from(run) + 1);
        match &self.method {
            Method::Pgd(parameters) => {
                let loss = |x: &Tensor| summed_cross_entropy(&logits(x)?, labels);
                pgd(&loss, images, parameters, &start_noise(parameters)?)
            }
            Method::Cw(parameters) => {
                let loss = |x: &Tensor| margins(&logits(x)?, labels)?.f_neg();
                pgd(&loss, images, parameters, &start_noise(parameters)?)
            }
            Method::ApgdCe(parameters) => apgd(
                &logits,
                &ApgdLoss::CrossEntropy,
                images,
                labels,
                parameters,
                &start_direction(parameters)?,
            ),
            Method::ApgdT(parameters) => {
                let loss = ApgdLoss::TargetedDlr(target()?);
                apgd(&logits, &loss, images, labels, parameters, &start_direction(parameters)?)
            }
            Method::FabT(parameters) => fab_t(&logits, images, labels, &target()?, parameters),
            Method::Square(parameters) => {
                // Square builds its candidates on the host, in the default memory format.
                let logits = |x: &Tensor| logits(&classifier.prepare_input(x)?);
                let stream =
                    |&image: &usize| Stream::square(seed, &self.random_key, image as u64, u64::from(run));
                square(&logits, images, labels, parameters, batch.indices.iter().map(stream).collect())
            }
        }
    }
}

impl Batch {
    fn noise(&self, seed: u64, key: &str, run: u32, start: Start) -> Result<Tensor, TchError> {
        let noise = evaluation_noise(seed, key, u64::from(run), &self.indices, self.image_shape, start)?;
        noise.f_to_device(self.images.device())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use datjob_api::training::Sweep;
    use serde_json::json;
    use tch::{Device, Kind};

    use super::{super::sweep_attacks, *};

    /// A linear classifier that keeps the first images that it classifies.
    struct FirstInput {
        weights: Tensor,
        input: RefCell<Option<Tensor>>,
    }

    impl Classifier for FirstInput {
        fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
            self.input.borrow_mut().get_or_insert_with(|| images.detach().copy());
            images.f_flatten(1, -1)?.f_matmul(&self.weights)
        }
    }

    /// The perturbation that the first query of a stage's first run tries.
    fn first_perturbation(stage: &Stage) -> Tensor {
        let pixels = Tensor::arange(48, (Kind::Float, Device::Cpu));
        let weights = (&pixels * 0.7).sin().view([12, 4]);
        let classifier = FirstInput { weights, input: RefCell::default() };
        let images = pixels.slice(0, 0, 24, 1).cos().view([2, 3, 2, 2]) * 0.1 + 0.5;
        let labels = Tensor::from_slice(&[0_i64, 1]);
        let ranking = Tensor::from_slice(&[0_i64, 1, 2, 3, 1, 2, 3, 0]).view([2, 4]);
        let batch = Batch {
            indices: vec![5, 9],
            classes: vec![0, 1],
            images: images.shallow_clone(),
            labels,
            ranking,
            image_shape: [3, 2, 2],
        };
        let _ = stage.generate(&classifier, &batch, 1, 0).unwrap();
        classifier.input.take().unwrap() - images
    }

    fn threat_model() -> ThreatModel {
        serde_json::from_value(json!({"epsilon": "0.1"})).unwrap()
    }

    #[test]
    fn no_two_attacks_begin_at_the_same_points() {
        let spec = json!([
            {"pgd": {"steps": 10}}, {"pgd": {"steps": 20}}, {"cw": {"steps": 10}}, {"apgdCe": {"steps": 10}},
            {"apgdT": {"steps": 10, "targets": 2}}, {"square": {"queries": 10}}, {"autoAttack": {}}
        ]);
        let attacks: Vec<FinalAttack> = serde_json::from_value(spec).unwrap();
        let starts: Vec<(String, Tensor)> = attacks
            .iter()
            .flat_map(|attack| EvalAttack::for_test(attack, &threat_model(), 4).stages)
            // FAB begins at the image itself.
            .filter(|stage| !matches!(stage.method, Method::FabT(_)))
            .map(|stage| (stage.random_key.clone(), first_perturbation(&stage).sign()))
            .collect();
        assert_eq!(starts.len(), 9);
        for (index, (name, start)) in starts.iter().enumerate() {
            for (other_name, other) in &starts[..index] {
                assert_ne!(start, other, "{name} and {other_name}");
            }
        }
    }

    #[test]
    fn a_sweep_begins_at_the_same_points_scaled_by_the_radius() {
        let sweep: Sweep = serde_json::from_value(json!({"epsilon": ["0.05"], "steps": [2, 4]})).unwrap();
        let attacks = sweep_attacks(&sweep, &threat_model(), 4);
        let unit: Vec<Tensor> = attacks
            .iter()
            .zip(sweep.points(&threat_model().epsilon))
            .map(|(attack, (epsilon, _))| first_perturbation(&attack.stages[0]) / epsilon.value())
            .collect();
        assert!(unit.len() >= 2);
        assert!(unit.iter().all(|start| start.allclose(&unit[0], 0.0, 1e-5, false)), "{unit:?}");
    }
}
