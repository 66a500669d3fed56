//! Valid specs, and the field that each refusal names.

use super::*;
use crate::training::{Backend, FinalAttack};

mod data;

fn example() -> Training {
    serde_json::from_value(serde_json::json!({
        "model": {"architecture": "small-cnn"},
        "data": {"dataset": "fashion-mnist", "source": {"image": {"reference": "data"}}},
        "threatModel": {"epsilon": "0.1"},
        "attack": {"fgsm": {}},
        "schedule": {"epochs": 2}
    }))
    .unwrap()
}

const TWO: Topology = Topology { pods: 2, workers: 1, gpus: 0 };

fn problem(change: impl FnOnce(&mut Training)) -> String {
    let mut training = example();
    change(&mut training);
    training.check(TWO).unwrap_err().to_string()
}

#[test]
fn accepts_the_minimal_spec() {
    example().check(TWO).unwrap();
}

#[test]
fn refusals_name_the_field() {
    let epsilon = |text: &str| text.parse().unwrap();
    assert!(
        problem(|t| t.threat_model.epsilon = epsilon("8"))
            .starts_with("spec.training.threatModel.epsilon: invalid value 8: ")
    );
    assert!(problem(|t| t.threat_model.epsilon = epsilon("0")).contains("threatModel.epsilon"));
    assert!(problem(|t| t.schedule.batch_size = 1).contains("must be at least the world size (2)"));
    assert!(problem(|t| t.schedule.epochs = 0).contains("schedule.epochs"));
    assert!(problem(|t| t.schedule.warmup_epochs = 1).contains("warmupEpochs"));
    assert!(problem(|t| t.evaluation.final_.clear()).contains("evaluation.final"));
    let stem = problem(|t| t.model.stem = crate::training::Stem::ImageNet);
    assert!(stem.starts_with("spec.training.model.stem: stem requires architecture resnet18"), "{stem}");
    let nccl = problem(|t| t.communication.backend = Backend::Nccl);
    assert!(nccl.starts_with("spec.training.communication.backend: ") && nccl.contains("nvidia.com/gpu"));
    let sgd = crate::training::Sgd { learning_rate: f64::NAN, ..Default::default() };
    assert!(problem(|t| t.optimizer = crate::training::Optimizer::Sgd(sgd)).contains("learningRate"));
    let certify = crate::training::Certify { sigma: Some(f64::NAN), ..Default::default() };
    assert!(
        problem(|t| t.evaluation.certify = Some(certify)).contains("evaluation.certify.sigma: invalid value")
    );
}

#[test]
fn rejects_out_of_range_sweeps() {
    let sweep = |json: &str| {
        let sweep = serde_json::from_str(json).unwrap();
        problem(|t| t.evaluation.sweep = Some(sweep))
    };
    assert!(
        sweep(r#"{"epsilon": ["0.1", "2"]}"#)
            .contains("evaluation.sweep.epsilon[1]: invalid value 2: must be")
    );
    assert!(sweep(r#"{"steps": [10, 0]}"#).contains("evaluation.sweep.steps[1]: invalid value 0: must be"));
    assert!(sweep(&format!(r#"{{"steps": {:?}}}"#, [1; 17])).contains("at most 16"));
}

#[test]
fn smoothing_requires_pgd_and_certification_requires_a_sigma() {
    let smoothing = |t: &mut Training| t.smoothing = serde_json::from_str(r#"{"sigma": 0.25}"#).unwrap();
    assert!(problem(smoothing).starts_with("spec.training.attack: attack.fgsm and attack.nFgsm require"));
    let certify = |t: &mut Training| t.evaluation.certify = Some(crate::training::Certify::default());
    assert!(problem(certify).contains(
        "evaluation.certify.sigma: certify.sigma, the standard deviation of the noise, is required"
    ));
    let mut both = example();
    smoothing(&mut both);
    certify(&mut both);
    both.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
    both.check(TWO).unwrap();
    assert!(both.certified_sigma().is_some_and(|sigma| (sigma - 0.25).abs() < 1e-12));
}

#[test]
fn rejects_targets_of_unknown_attacks() {
    let mut training = example();
    let target =
        |attack: Option<&str>| crate::training::Target { attack: attack.map(str::to_owned), accuracy: 45.0 };
    for attack in [None, Some("pgd-20")] {
        training.evaluation.target = Some(target(attack));
        training.check(TWO).unwrap();
    }
    let wrong = problem(|t| t.evaluation.target = Some(target(Some("autoattack"))));
    assert!(
        wrong.starts_with(
            "spec.training.evaluation.target.attack: target.attack must be the name of an attack"
        ),
        "{wrong}"
    );
}

#[test]
fn rejects_unsupported_combinations_of_attack_norm_and_objective() {
    let trades = |t: &mut Training| t.objective = serde_json::from_str(r#"{"trades": {}}"#).unwrap();
    assert!(problem(trades).starts_with("spec.training.attack: attack.fgsm and attack.nFgsm require"));
    let l2 = |t: &mut Training| {
        t.threat_model.norm = Norm::L2;
        t.threat_model.epsilon = "3.0".parse().unwrap();
    };
    assert!(
        problem(l2)
            .starts_with("spec.training.attack: attack.fgsm and attack.nFgsm require threatModel.norm Linf")
    );
    let mut both = example();
    trades(&mut both);
    l2(&mut both);
    both.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
    both.check(TWO).unwrap();
    both.threat_model.epsilon = "101".parse().unwrap();
    assert!(both.check(TWO).unwrap_err().to_string().contains("greater than 0 and at most 100"));
}

#[test]
fn rejects_more_targets_than_other_classes() {
    let apgd =
        |targets: u32| FinalAttack::ApgdT(crate::training::Targeted { steps: None, targets: Some(targets) });
    assert!(problem(|t| t.evaluation.final_ = vec![apgd(10)]).contains("evaluation.final[0].apgdT.targets"));
    let mut training = example();
    training.evaluation.final_ = vec![apgd(9)];
    training.check(TWO).unwrap();
    assert_eq!(apgd(9).name(), "apgd-t-100-9");
}

#[test]
fn rejects_out_of_range_optimizers_and_scales_the_learning_rate() {
    for (optimizer, field) in [
        (r#"{"lamb": {"beta2": 1.0}}"#, "optimizer.lamb.beta2"),
        (r#"{"adamW": {"epsilon": -1}}"#, "optimizer.adamW.epsilon"),
        (r#"{"lars": {"trust": 11}}"#, "optimizer.lars.trust"),
        (r#"{"lars": {"learningRate": 1e9}}"#, "optimizer.lars.learningRate"),
    ] {
        let sentence = problem(|t| t.optimizer = serde_json::from_str(optimizer).unwrap());
        assert!(sentence.starts_with(&format!("spec.training.{field}: ")), "{sentence}");
    }
    let scale = |rule: &str| {
        let mut schedule = example().schedule;
        schedule.batch_size = 1024;
        let json = format!(r#"{{"rule": "{rule}", "baseBatchSize": 256}}"#);
        schedule.scaling = Some(serde_json::from_str(&json).unwrap());
        schedule.scale()
    };
    assert!((scale("Linear") - 4.0).abs() < 1e-12 && (scale("SquareRoot") - 2.0).abs() < 1e-12);
    assert!((example().schedule.scale() - 1.0).abs() < 1e-12);
}

#[test]
fn local_steps_exclude_compression_and_overlap() {
    let int8 =
        |json: &str| serde_json::from_str(&format!(r#"{{"compression": {{"int8": {json}}}}}"#)).unwrap();
    for (json, sentence) in [
        (
            r#"{"bucket": 8}"#,
            "communication.compression.int8.bucket: invalid value 8: must be between 16 and 65536, inclusive",
        ),
        (
            r#"{"sides": 3}"#,
            "communication.compression.int8.sides: invalid value 3: must be between 1 and 2, inclusive",
        ),
    ] {
        assert!(problem(|t| t.communication = int8(json)).contains(sentence), "{json}");
    }
    assert!(
        problem(|t| t.schedule.local_steps = Some(0))
            .contains("schedule.localSteps: invalid value 0: must be between")
    );
    let mut training = example();
    training.schedule.local_steps = Some(4);
    training.check(TWO).unwrap();
    let compressed = problem(|t| {
        t.schedule.local_steps = Some(4);
        t.communication = int8("{}");
    });
    let expected = "spec.training.schedule.localSteps: localSteps averages weights instead of gradients";
    assert!(compressed.starts_with(expected), "{compressed}");
    let overlapped = problem(|t| {
        t.schedule.local_steps = Some(4);
        t.attack.overlap = true;
    });
    assert!(overlapped.starts_with(expected), "{overlapped}");
}

#[test]
fn one_local_step_does_not_change_the_hash() {
    let mut training = example();
    let hash = training.hash();
    training.schedule.local_steps = Some(1);
    assert_eq!(training.hash(), hash);
}

#[test]
fn nccl_requires_a_gpu_per_rank() {
    let mut training = example();
    training.communication.backend = Backend::Nccl;
    training.check(Topology { pods: 2, workers: 4, gpus: 4 }).unwrap();
    let problem = training.check(Topology { pods: 2, workers: 4, gpus: 2 }).unwrap_err().to_string();
    assert!(problem.contains("workers per pod (4) exceed the GPUs per pod (2)"), "{problem}");
}

#[test]
fn rejects_unknown_fields() {
    let mut json = serde_json::to_value(example()).unwrap();
    json["attack"] = serde_json::json!({"fgsm": {"stepsize": "0.1"}});
    assert!(serde_json::from_value::<Training>(json).unwrap_err().to_string().contains("stepsize"));
}

#[test]
fn the_hash_depends_on_the_content() {
    let mut other = example();
    assert_eq!(example().hash(), other.hash());
    other.seed = 1;
    assert_ne!(example().hash(), other.hash());
}

#[test]
fn rejects_duplicate_attacks() {
    let twice = r#"[{"pgd": {"steps": 20}}, {"pgd": {"steps": 20, "stepSize": "1/255"}}]"#;
    let sentence = problem(|t| t.evaluation.final_ = serde_json::from_str(twice).unwrap());
    assert!(
        sentence.starts_with("spec.training.evaluation.final: duplicate attack \"pgd-20\""),
        "{sentence}"
    );
}

#[test]
fn rejects_apgd_t_with_fewer_than_four_classes() {
    let contents = |classes| crate::training::Contents {
        image_shape: [3, 32, 32],
        classes,
        training_images: 5000,
        test_images: 100,
    };
    for attack in [r#"[{"autoAttack": {}}]"#, r#"[{"apgdT": {"targets": 2}}]"#] {
        let mut training = example();
        training.evaluation.final_ = serde_json::from_str(attack).unwrap();
        let sentence = training.check_contents(&contents(3), 1).unwrap_err().to_string();
        assert!(
            sentence.contains("requires at least 4 classes") && sentence.contains("has 3;"),
            "{sentence}"
        );
        training.check_contents(&contents(4), 1).unwrap();
    }
}

#[test]
fn the_size_of_a_weight_perturbation_depends_on_the_objective() {
    let gamma = |perturbation: &str, objective: &str| {
        let perturbation: crate::training::WeightPerturbation = serde_json::from_str(perturbation).unwrap();
        perturbation.gamma(&serde_json::from_str(objective).unwrap())
    };
    let (cross_entropy, trades) = (r#"{"crossEntropy": {}}"#, r#"{"trades": {}}"#);
    let all = [gamma("{}", cross_entropy), gamma("{}", trades), gamma(r#"{"gamma": 0.02}"#, trades)];
    assert_eq!(all.map(|gamma| (gamma * 1000.0).round() as i64), [10, 5, 20]);
}
