//! Evaluations: sharding, attacks of the spec, progress and errors.

use std::{cell::Cell, collections::HashMap, ops::ControlFlow};

use datjob_adversarial::{
    attack::{ApgdParameters, FabParameters, PerturbationSet, PgdParameters, SquareParameters},
    evaluate::{
        BATCH, Classifier, Counts, EvalAttack, EvaluateError, Evaluation, EvaluationProgress, Method,
        NoUnitResults, Unit, UnitResults, evaluate, evaluate_classifier, predict,
    },
    model::{Mode, Network},
    shard::Shard,
    tensors::float_batch,
};
use datjob_api::training::{Architecture, AutoAttack, DuringAttack, FinalAttack, Norm, ThreatModel};
use datjob_data::{Images, random::Stream};
use tch::{Device, Kind, TchError, Tensor, no_grad};

fn network() -> Network {
    Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, 3, (Kind::Float, Device::Cpu)).unwrap()
}

/// Random images. The network classifies all of them correctly except every tenth.
fn images(network: &Network, count: usize) -> Images {
    let mut stream = Stream::split(0);
    let pixels: Vec<u8> = (0..count * 784).map(|_| stream.below(256) as u8).collect();
    let unlabelled = Images::new([1, 28, 28], pixels.clone(), vec![0; count]);
    let all: Vec<usize> = (0..count).collect();
    let (batch, _) = float_batch(&unlabelled.read(&all, None).unwrap(), Device::Cpu).unwrap();
    let classes = no_grad(|| network.forward(&batch, Mode::Eval).unwrap().argmax(1, false));
    let labels = Vec::<i64>::try_from(classes).unwrap().into_iter().enumerate();
    let labels = labels.map(|(i, class)| if i % 10 == 0 { (class + 1) % 10 } else { class } as u16);
    Images::new([1, 28, 28], pixels, labels.collect())
}

fn linf(epsilon: f64) -> PerturbationSet {
    PerturbationSet { norm: Norm::Linf, epsilon }
}

fn attack(epsilon: f64, steps: u32, restarts: u32) -> EvalAttack {
    let step_size = 2.5 * epsilon / f64::from(steps);
    let parameters = PgdParameters { perturbations: linf(epsilon), step_size, steps };
    EvalAttack::single(&format!("pgd-{steps}-{restarts}"), Method::Pgd(parameters), restarts)
}

fn run(
    network: &Network,
    images: &Images,
    indices: &[usize],
    attacks: &[EvalAttack],
    world_size: usize,
) -> Counts {
    let evaluation = evaluation(images, indices, attacks);
    let part = |rank| {
        let shard = Shard { rank, world_size };
        evaluate(network, &evaluation, shard, &mut NoUnitResults, &mut |_| ControlFlow::Continue(()))
            .unwrap()
            .to_vec()
    };
    let sum = |left: Vec<i64>, right: Vec<i64>| left.iter().zip(right).map(|(a, b)| a + b).collect();
    let mut counts = evaluation.counts();
    counts.load(&(0..world_size).map(part).reduce(sum).unwrap()).unwrap();
    counts
}

fn evaluation<'a>(images: &'a Images, indices: &'a [usize], attacks: &'a [EvalAttack]) -> Evaluation<'a> {
    Evaluation { images, indices, classes: 10, seed: 7, attacks, device: Device::Cpu }
}

/// The number of robust images under each attack.
fn robust(counts: &Counts) -> Vec<u64> {
    (0..counts.attacks.len()).map(|attack| counts.robust(attack)).collect()
}

#[test]
fn predicts_the_class_of_each_image_in_order() {
    let network = network();
    let images = images(&network, 40);
    let indices: Vec<usize> = (0..40).rev().filter(|index| index % 10 != 0).collect();
    let (_, labels) = float_batch(&images.read(&indices, None).unwrap(), Device::Cpu).unwrap();
    let expected = Vec::<i64>::try_from(labels).unwrap();
    assert!(expected.iter().any(|class| *class != expected[0]), "{expected:?}");
    // A batch size that does not divide their number.
    assert_eq!(predict(&network, &images, &indices, 7, Device::Cpu).unwrap(), expected);
}

#[test]
fn counts_do_not_depend_on_the_world_size() {
    let network = network();
    let images = images(&network, 4 * BATCH);
    // The validation images are a subset, and their number is not a multiple of the batch size.
    let indices: Vec<usize> = (0..4 * BATCH).filter(|index| index % 7 != 0).collect();
    let attacks = [attack(0.002, 3, 1), attack(0.002, 2, 3)];
    let single = run(&network, &images, &indices, &attacks, 1);
    let (total, clean) = (single.total.sum(), single.clean.sum());
    assert_eq!(total, indices.len() as u64);
    assert!(clean * 10 >= total * 8 && clean < total, "{single:?}");
    for robust in robust(&single) {
        assert!((1..clean).contains(&robust), "the attacks must decide something: {single:?}");
        assert!(single.worst_case.sum() <= robust);
    }
    for world_size in [2, 3, 7] {
        assert_eq!(run(&network, &images, &indices, &attacks, world_size), single, "world of {world_size}");
    }
}

/// A classifier with memory for some images.
struct SmallMemory<'a> {
    network: &'a Network,
    images: i64,
}

impl Classifier for SmallMemory<'_> {
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        if images.size()[0] > self.images {
            return Err(TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB.".into()));
        }
        self.network.forward(images, Mode::Eval)
    }
}

#[test]
fn counts_do_not_depend_on_the_memory() {
    let network = network();
    let images = images(&network, 120);
    let indices: Vec<usize> = (0..120).collect();
    let apgd = ApgdParameters { perturbations: linf(0.002), steps: 5 };
    let square = SquareParameters { perturbations: linf(0.02), queries: 20 };
    let fab = FabParameters { perturbations: linf(0.002), steps: 5 };
    let mut attacks = [
        attack(0.002, 3, 2),
        EvalAttack::single("apgd-t", Method::ApgdT(apgd), 3),
        EvalAttack::single("fab-t", Method::FabT(fab), 2),
        EvalAttack::single("square", Method::Square(square), 1),
    ];
    attacks[0].sanity_checks = true;
    let evaluation = evaluation(&images, &indices, &attacks);
    let counts = |memory| {
        let classifier = SmallMemory { network: &network, images: memory };
        let mut ignore = |_: EvaluationProgress<'_>| ControlFlow::Continue(());
        network.with_frozen_weights(|| {
            evaluate_classifier(&classifier, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut ignore)
        })
    };
    let whole = counts(120).unwrap();
    assert!(robust(&whole).iter().all(|&robust| robust > 0 && robust < whole.clean.sum()), "{whole:?}");
    assert_eq!(counts(40).unwrap(), whole);
    assert!(counts(0).unwrap_err().to_string().contains("out of memory"));
}

#[test]
fn apgd_is_at_least_as_strong_as_pgd_on_every_world_size() {
    let network = network();
    let images = images(&network, 3 * BATCH);
    let indices: Vec<usize> = (0..3 * BATCH).collect();
    let parameters = ApgdParameters { perturbations: linf(0.002), steps: 10 };
    let attacks = [
        attack(0.002, 10, 1),
        EvalAttack::single("apgd-ce-10", Method::ApgdCe(parameters), 1),
        EvalAttack::single("apgd-t-10-9", Method::ApgdT(parameters), 9),
    ];
    let single = run(&network, &images, &indices, &attacks, 1);
    let [pgd, ce, targeted] = robust(&single)[..] else { panic!("{single:?}") };
    // Of 750 images, one attack may miss two that the other finds.
    assert!(ce <= pgd + 2 && targeted <= pgd + 2 && targeted < single.clean.sum(), "{single:?}");
    assert_eq!(run(&network, &images, &indices, &attacks, 2), single);
}

#[test]
fn restarts_make_an_attack_stronger() {
    let network = network();
    let images = images(&network, BATCH);
    let indices: Vec<usize> = (0..BATCH).collect();
    // The step is too short to reach the ball's border, so the start matters.
    let parameters = PgdParameters { perturbations: linf(0.01), step_size: 0.002, steps: 1 };
    let robust = |restarts| {
        let attack = EvalAttack::single("pgd", Method::Pgd(parameters), restarts);
        run(&network, &images, &indices, &[attack], 1).robust(0)
    };
    assert!(robust(5) < robust(1));
}

#[test]
fn an_attack_with_radius_0_changes_nothing() {
    let network = network();
    let images = images(&network, 20);
    let indices: Vec<usize> = (0..20).collect();
    let counts = run(&network, &images, &indices, &[attack(0.0, 2, 2)], 1);
    assert_eq!(
        [counts.total.sum(), counts.clean.sum(), counts.robust(0), counts.worst_case.sum()],
        [20, 18, 18, 18]
    );
}

#[test]
fn counts_are_0_without_images() {
    let network = network();
    let images = images(&network, 1);
    assert_eq!(run(&network, &images, &[], &[attack(0.1, 1, 1)], 2), Counts::new(10, [1]));
}

#[test]
fn skips_attacks_if_no_image_is_classified_correctly() {
    let network = network();
    let right = images(&network, 20);
    // The network misclassifies every tenth image of `images`.
    let indices = [0, 10];
    let attacks = [attack(0.1, 1, 1), EvalAttack::auto_attack(linf(0.1), 10)];
    let counts = run(&network, &right, &indices, &attacks, 1);
    assert_eq!((counts.total.sum(), counts.clean.sum(), robust(&counts)), (2, 0, vec![0, 0]));
}

#[test]
fn reports_progress_and_can_be_cancelled() {
    let network = network();
    let images = images(&network, 2 * BATCH);
    let indices: Vec<usize> = (0..2 * BATCH).collect();
    let attacks = [attack(0.001, 3, 2)];
    let evaluation = evaluation(&images, &indices, &attacks);
    let mut reports = Vec::new();
    let counts = evaluate(&network, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut |progress| {
        let EvaluationProgress { run, done, robust, total, work } = progress;
        assert_eq!((total, work.total), (500, 500 * 2 * 3));
        assert!(run.is_none_or(|run| (run.attack, run.stage, run.iterations) == ("pgd-3-2", "pgd-3-2", 3)));
        reports.push((run.map(|run| run.iteration), done, robust, work));
        ControlFlow::Continue(())
    })
    .unwrap();
    let iterations: Vec<_> = reports.iter().map(|report| report.0).collect();
    let run = [0, 1, 2, 3].map(Some);
    assert_eq!(iterations, [&run[..], &run, &run, &run, &[None]].concat(), "two runs on each of two batches");
    let at = |index: usize| (reports[index].1, reports[index].3.done, reports[index].3.known);
    assert_eq!([0, 1, 3].map(at), [(0, 0, None), (0, 250, Some(0)), (0, 750, Some(0))]);
    assert_eq!(
        [4, 6, 8, 16].map(at),
        [(0, 750, Some(0)), (0, 1250, Some(0)), (250, 1500, Some(0)), (500, 3000, Some(0))]
    );
    assert_eq!([9, 15].map(at), [(250, 1750, Some(0)), (250, 3000, Some(0))], "in the second batch");
    assert!(reports[0].2 == 0 && (1..=250).contains(&reports[8].2), "{reports:?}");
    assert_eq!(reports[16].2, counts.worst_case.sum());
    for calls in [1, 2] {
        let mut left = calls;
        let cancelled = evaluate(&network, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(cancelled, Err(EvaluateError::Cancelled)), "before and in a run");
        assert_eq!(left, 0);
    }
    assert!(network.parameters().iter().all(|(_, tensor)| tensor.requires_grad()));
}

#[test]
fn the_iterations_of_a_run_are_its_passes_of_the_network() {
    let network = network();
    let images = images(&network, 4);
    let pgd = PgdParameters { perturbations: linf(0.0), step_size: 0.0, steps: 3 };
    let apgd = ApgdParameters { perturbations: linf(0.0), steps: 3 };
    let fab = FabParameters { perturbations: linf(0.0), steps: 3 };
    let square = SquareParameters { perturbations: linf(0.0), queries: 3 };
    // With a radius of 0 every image withstands, so no run ends early.
    let attacks = [
        EvalAttack::single("pgd", Method::Pgd(pgd), 1),
        EvalAttack::single("cw", Method::Cw(pgd), 1),
        EvalAttack::single("apgd-ce", Method::ApgdCe(apgd), 1),
        EvalAttack::single("apgd-t", Method::ApgdT(apgd), 1),
        EvalAttack::single("fab-t", Method::FabT(fab), 1),
        EvalAttack::single("square", Method::Square(square), 1),
    ];
    let evaluation = evaluation(&images, &[1, 2, 3], &attacks);
    let mut reported: Vec<(String, u64, u64)> = Vec::new();
    evaluate(&network, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut |progress| {
        reported.extend(progress.run.map(|run| (run.attack.to_owned(), run.iteration, run.iterations)));
        ControlFlow::Continue(())
    })
    .unwrap();
    let passes = [("pgd", 3_u64), ("cw", 3), ("apgd-ce", 4), ("apgd-t", 4), ("fab-t", 6), ("square", 4)];
    let expected: Vec<(String, u64, u64)> = passes
        .iter()
        .flat_map(|&(attack, passes)| {
            (0..=passes).map(move |iteration| (attack.to_owned(), iteration, passes))
        })
        .collect();
    assert_eq!(reported, expected);
}

/// Keeps results in memory.
#[derive(Default)]
struct InMemory {
    known: HashMap<(Unit, Vec<usize>), Vec<bool>>,
    computed: usize,
}

impl UnitResults for InMemory {
    fn find(&mut self, unit: Unit, images: &[usize]) -> Option<Vec<bool>> {
        self.known.get(&(unit, images.to_vec())).cloned()
    }

    fn keep(&mut self, unit: Unit, images: &[usize], robust: &[bool]) {
        self.computed += 1;
        self.known.insert((unit, images.to_vec()), robust.to_vec());
    }

    fn find_certified(&mut self, _: usize) -> Option<usize> {
        None
    }

    fn keep_certified(&mut self, _: usize, _: usize) {}
}

#[test]
fn an_interrupted_evaluation_goes_on_where_it_was() {
    let network = network();
    let images = images(&network, 2 * BATCH + 7);
    let indices: Vec<usize> = (0..2 * BATCH + 7).collect();
    let attacks = [attack(0.02, 2, 2), attack(0.01, 3, 3)];
    let evaluation = evaluation(&images, &indices, &attacks);
    let known = Cell::new(None);
    let run = |units: &mut InMemory, shard, mut runs: usize| {
        evaluate(&network, &evaluation, shard, units, &mut |progress| {
            known.set(progress.work.known);
            runs -= usize::from(progress.run.is_some_and(|run| run.iteration == 0));
            if runs == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    };
    let mut whole = InMemory::default();
    let expected = run(&mut whole, Shard::WHOLE, usize::MAX).unwrap();
    let mut units = InMemory::default();
    assert!(matches!(run(&mut units, Shard::WHOLE, 6), Err(EvaluateError::Cancelled)));
    assert_eq!(units.computed, 5);
    assert_eq!(run(&mut units, Shard::WHOLE, usize::MAX).unwrap(), expected);
    assert_eq!(units.computed, whole.computed, "no unit is computed twice");
    // Another number of ranks has the same batches.
    for rank in 0..3 {
        run(&mut units, Shard { rank, world_size: 3 }, usize::MAX).unwrap();
    }
    assert_eq!(units.computed, whole.computed);
    // A result of another length is not of this evaluation.
    units.known.values_mut().for_each(|result| result.push(true));
    assert_eq!(run(&mut units, Shard::WHOLE, usize::MAX).unwrap(), expected);
    assert_eq!(units.computed, 2 * whole.computed);
    assert_eq!(known.get(), Some(0), "everything was computed");
    units.known.retain(|(unit, _), _| unit.batch == 0);
    run(&mut units, Shard::WHOLE, usize::MAX).unwrap();
    assert_eq!(known.get(), Some(BATCH as u64 * (2 * 2 + 3 * 3)), "the first batch was known");
    run(&mut units, Shard::WHOLE, usize::MAX).unwrap();
    assert_eq!(known.get(), None, "everything was known");
}

#[test]
fn logits_that_are_not_finite_are_an_error() {
    let network = network();
    let images = images(&network, 10);
    let (_, mut bias) = network.parameters().pop().unwrap();
    no_grad(|| bias.copy_(&Tensor::full([10], f64::NAN, (Kind::Float, Device::Cpu))));
    let evaluation = evaluation(&images, &[1, 2], &[]);
    let result =
        evaluate(&network, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(EvaluateError::NotFinite)));
}

#[test]
fn builds_attacks_from_the_spec() {
    let threat_model: ThreatModel = serde_json::from_value(serde_json::json!({"epsilon": "0.1"})).unwrap();
    let spec: FinalAttack =
        serde_json::from_value(serde_json::json!({"pgd": {"steps": 50, "restarts": 10}})).unwrap();
    let parameters = |steps: u32| PgdParameters {
        perturbations: linf(0.1),
        step_size: 2.5 * 0.1 / f64::from(steps),
        steps,
    };
    assert_eq!(
        EvalAttack::for_test(&spec, &threat_model, 10),
        EvalAttack::single("pgd-50-10", Method::Pgd(parameters(50)), 10)
    );
    assert_eq!(
        EvalAttack::for_validation(&DuringAttack::default(), &threat_model),
        EvalAttack::single("pgd-10", Method::Pgd(parameters(10)), 1)
    );
    let auto_attack = EvalAttack::for_test(&FinalAttack::AutoAttack(AutoAttack {}), &threat_model, 7);
    let runs: Vec<(&str, u32)> =
        auto_attack.stages.iter().map(|stage| (stage.name.as_str(), stage.runs)).collect();
    assert_eq!(runs, [("apgd-ce", 1), ("apgd-t", 6), ("fab-t", 6), ("square", 1)]);
}
