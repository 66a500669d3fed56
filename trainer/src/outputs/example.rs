//! An example of a results document, for tests.

use datjob_api::{
    Training,
    report::{AttackResult, CertifiedCount, Count, CountsByClass, Results, StageCount, SweepCount},
};
use datjob_data::weights::WeightsCard;
use jiff::Timestamp;
use serde_json::json;

use crate::checkpoint::results::{Accuracies, Document, LastWeights, Time};

fn training() -> Training {
    serde_json::from_value(json!({
        "seed": 7,
        "model": {"architecture": "wide-resnet-28-10"},
        "data": {
            "dataset": "cifar10",
            "source": {"volume": {"persistentVolumeClaim": {"claimName": "</pre><script>"}}}
        },
        "threatModel": {"epsilon": "8/255"},
        "attack": {"pgd": {"steps": 10}},
        "schedule": {"epochs": 30},
        "evaluation": {
            "sweep": {"epsilon": ["2/255", "4/255", "8/255", "16/255"], "steps": [1, 10, 50]},
            "certify": {"sigma": 0.25}
        }
    }))
    .unwrap()
}

/// The results of a finished training, with every optional evaluation.
pub(crate) fn document() -> Document {
    let training = training();
    let count = |correct| Count { correct, total: 100 };
    let stages = [("apgd-ce", 45), ("apgd-t", 41), ("fab-t", 41), ("square", 40)];
    let stages = stages.map(|(name, correct)| StageCount { name: name.into(), correct });
    let attack = |name: &str, correct, stages, warnings| AttackResult {
        attack: name.into(),
        correct,
        total: 100,
        stages,
        warnings,
    };
    let warning = "Square's gain: it brought down 1 of 100. The network may hide its gradients <b>.";
    let sweep = |(epsilon, steps, correct): (&str, u32, u64)| SweepCount {
        epsilon: epsilon.into(),
        steps,
        correct,
        total: 100,
    };
    let certified =
        |(radius, correct): (&str, u64)| CertifiedCount { radius: radius.into(), correct, total: 50 };
    let results = Results {
        best_epoch: 24,
        averaged: true,
        clean: count(80),
        attacks: vec![
            attack("autoattack", 40, stages.into(), vec![warning.into()]),
            attack("pgd-20", 47, Vec::new(), Vec::new()),
        ],
        worst_case: count(39),
        sweep: [
            ("2/255", 20, 72),
            ("4/255", 20, 65),
            ("8/255", 20, 47),
            ("16/255", 20, 15),
            ("8/255", 1, 66),
            ("8/255", 10, 49),
            ("8/255", 50, 46),
        ]
        .map(sweep)
        .into(),
        certified: [("0.0", 40), ("0.25", 30), ("0.5", 17), ("1.0", 4)].map(certified).into(),
        by_class: Some(CountsByClass {
            total: vec![10; 10],
            clean: vec![9, 9, 7, 6, 8, 7, 9, 8, 9, 8],
            attacks: Vec::new(),
            worst_case: vec![5, 6, 2, 1, 3, 2, 4, 5, 6, 5],
        }),
        weights: "job/best.safetensors".into(),
        sha256: "abc".into(),
        seed: 7,
        training_hash: "hash".into(),
        trainer_version: "0.1.0".into(),
        libtorch_version: "2.11.0".into(),
        world_size: 2,
        threads: 1,
        devices: vec!["A <CPU>".into()],
    };
    Document {
        job_uid: "<job & co>".into(),
        accuracies: Accuracies::from(&results),
        results,
        last: Some(LastWeights {
            epoch: 30,
            averaged: true,
            weights: "job/last.safetensors".into(),
            sha256: "def".into(),
        }),
        trained_on: WeightsCard {
            dataset: training.data.dataset,
            training_images: 50_000,
            validation_count: 1000,
            validation_seed: 0,
        },
        time: Time {
            started_at: Some(Timestamp::constant(1_700_000_000, 0)),
            finished_at: Timestamp::constant(1_700_001_000, 0),
            epochs: 30,
            training_seconds: 300.0,
            seconds_per_epoch: 10.0,
            attack_seconds: 210.0,
            communication_seconds: 15.0,
            bytes_per_step: 1000,
            validation_seconds: 30.0,
            test_seconds: 60.0,
            peak_gpu_memory_bytes: None,
        },
        contents: training.data.dataset.contents().unwrap(),
        training,
        not_written: Vec::new(),
    }
}
