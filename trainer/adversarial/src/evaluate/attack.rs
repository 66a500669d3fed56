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

/// Classes that AutoAttack's targeted attacks try.
const AUTO_ATTACK_TARGETS: u32 = 9;
/// Steps of AutoAttack's attacks with gradients.
const AUTO_ATTACK_STEPS: u32 = 100;
/// Queries of AutoAttack's Square.
const AUTO_ATTACK_QUERIES: u32 = 5000;

/// An attack of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalAttack {
    /// The name that reports use, for example `pgd-20`.
    pub name: String,
    /// One after the other, each on the images that withstood those before.
    pub stages: Vec<Stage>,
    /// Whether signs that its figure is too high are looked for: see [`super::doubts`].
    pub checked: bool,
}

/// A part of an attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its name in the attack.
    pub name: String,
    /// What is done.
    pub method: Method,
    /// How often, from another start or towards another class; an image counts as robust where it withstands all.
    pub runs: u32,
}

/// What an attack does in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Projected gradient descent on the cross-entropy.
    Pgd(PgdParameters),
    /// Projected gradient descent on the margin of the logits.
    Cw(PgdParameters),
    /// APGD on the cross-entropy.
    ApgdCe(ApgdParameters),
    /// APGD on the targeted difference of logits ratio, in run r towards the class that is r + 2nd on the image.
    ApgdT(ApgdParameters),
    /// FAB towards the class that is r + 2nd on the image.
    FabT(FabParameters),
    /// Random search.
    Square(SquareParameters),
}

impl EvalAttack {
    /// An attack of one stage.
    pub fn single(name: &str, method: Method, runs: u32) -> Self {
        let stage = Stage { name: name.to_owned(), method, runs };
        Self { name: name.to_owned(), stages: vec![stage], checked: false }
    }

    /// The attack on the validation split.
    pub fn during(spec: &DuringAttack, threat_model: &ThreatModel) -> Self {
        let DuringAttack::Pgd(spec) = spec;
        let perturbations = PerturbationSet::from(threat_model);
        let step_size = spec.step_size(threat_model);
        let parameters = PgdParameters { perturbations, step_size, steps: spec.steps };
        Self::single(&format!("pgd-{}", spec.steps), Method::Pgd(parameters), 1)
    }

    /// An attack on the test set, for images of so many classes.
    pub fn at_end(spec: &FinalAttack, threat_model: &ThreatModel, classes: i64) -> Self {
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
        let stages = stages.map(|(name, method, runs)| Stage { name: name.to_owned(), method, runs });
        Self { name: "autoattack".to_owned(), stages: stages.into(), checked: true }
    }
}

impl Method {
    /// Adversarial examples of one run. The start of a run belongs to the seed, the image and the run.
    pub(super) fn adversarial(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        (seed, run): (u64, u32),
    ) -> Result<Tensor, TchError> {
        let (images, labels) = (&batch.images, &batch.labels);
        let pair = (images, labels);
        let logits = |x: &Tensor| classifier.logits(x);
        let noise = |start| batch.noise(seed, run, start);
        // Of APGD's start the direction alone counts.
        let direction =
            |parameters: &ApgdParameters| noise(Start::in_ball(parameters.perturbations.norm, 1.0));
        let start = |parameters: &PgdParameters| {
            noise(Start::in_ball(parameters.perturbations.norm, parameters.perturbations.epsilon))
        };
        let target = || batch.ranking.f_select(1, i64::from(run) + 1);
        match self {
            Self::Pgd(parameters) => {
                let loss = |x: &Tensor| summed_cross_entropy(&logits(x)?, labels);
                pgd(&loss, images, parameters, &start(parameters)?)
            }
            Self::Cw(parameters) => {
                let loss = |x: &Tensor| margins(&logits(x)?, labels)?.f_neg();
                pgd(&loss, images, parameters, &start(parameters)?)
            }
            Self::ApgdCe(parameters) => {
                apgd(&logits, &ApgdLoss::CrossEntropy, pair, parameters, &direction(parameters)?)
            }
            Self::ApgdT(parameters) => {
                let loss = ApgdLoss::TargetedDlr(target()?);
                apgd(&logits, &loss, pair, parameters, &direction(parameters)?)
            }
            Self::FabT(parameters) => fab_t(&logits, pair, &target()?, parameters),
            Self::Square(parameters) => {
                // Its points are made on the host, in the usual memory format.
                let logits = |x: &Tensor| logits(&classifier.input(x)?);
                let stream = |&image: &usize| Stream::square(seed, image as u64, u64::from(run));
                square(&logits, pair, parameters, batch.indices.iter().map(stream).collect())
            }
        }
    }
}

impl Batch {
    fn noise(&self, seed: u64, run: u32, start: Start) -> Result<Tensor, TchError> {
        let noise = evaluation_noise(seed, u64::from(run), &self.indices, self.image_shape, start)?;
        noise.f_to_device(self.images.device())
    }
}
