//! Every attack, objective and optimizer in a run.

use std::fs;

use serde_json::{Value, json};

use super::{
    assert_outputs_complete,
    run::{Run, manifest},
};

/// Trains with every attack, objective and optimizer once.
#[test]
fn every_method_learns() {
    for (name, change) in [
        (
            "TRADES with LAMB and a cosine, overlapped in 8 bits",
            json!({
                "attack": {"pgd": {"steps": 1}, "overlap": true},
                "communication": {"compression": {"int8": {}}},
                "objective": {"trades": {"beta": 2.0}},
                "optimizer": {"lamb": {"learningRate": 0.02}},
                "evaluation": {
                    "during": {"pgd": {"steps": 1}},
                    "final": [
                        {"apgdCe": {"steps": 2}},
                        {"apgdT": {"steps": 2, "targets": 1}},
                        {"cw": {"steps": 2}},
                        {"fabT": {"steps": 2, "targets": 1}},
                        {"square": {"queries": 5}}
                    ]
                },
                "schedule": {"epochs": 1, "batchSize": 32, "decay": {"cosine": {}}}
            }),
        ),
        (
            "MART with AdamW, weight perturbation and local steps",
            json!({
                "attack": {"pgd": {"steps": 1}},
                "objective": {"mart": {"beta": 2.0}},
                "weightPerturbation": {"gamma": 0.005},
                "averaging": {"ema": {"decay": 0.9}},
                "optimizer": {"adamW": {"learningRate": 0.002}},
                "schedule": {"epochs": 2, "batchSize": 16, "localSteps": 4}
            }),
        ),
        (
            "PGD in l2 with LARS, label smoothing and a scaled rate, in 16 bits",
            json!({
                "communication": {"compression": {"fp16": {}}},
                "threatModel": {"norm": "L2", "epsilon": "1.5"},
                "attack": {"pgd": {"steps": 1}},
                "objective": {"crossEntropy": {"cleanWeight": 1.0, "labelSmoothing": 0.1}},
                "optimizer": {"lars": {"learningRate": 0.1, "trust": 0.05}},
                "schedule": {
                    "epochs": 1,
                    "batchSize": 32,
                    "scaling": {"rule": "Linear", "baseBatchSize": 16}
                }
            }),
        ),
        (
            "Smooth-AT, certified and overlapped",
            json!({
                "threatModel": {"norm": "L2", "epsilon": "0.5"},
                "attack": {"pgd": {"steps": 1}, "overlap": true},
                "smoothing": {"sigma": 0.25, "samples": 2},
                "evaluation": {
                    "during": {"pgd": {"steps": 1}},
                    "final": [{"pgd": {"steps": 1}}],
                    "sweep": {"epsilon": ["3.0"], "steps": [2]},
                    "certify": {"images": 20, "selectionSamples": 20, "samples": 500, "alpha": 0.01}
                },
                "schedule": {"epochs": 1, "batchSize": 32}
            }),
        ),
        (
            "N-FGSM with SiLU and normalisation, in 8 bits with error feedback",
            json!({
                "communication": {"compression": {"int8": {"bucket": 256, "sides": 1, "errorFeedback": true}}},
                "model": {"architecture": "small-cnn", "activation": "SiLU", "normalization": "Dataset"},
                "attack": {"nFgsm": {}},
                "schedule": {"epochs": 1, "batchSize": 32}
            }),
        ),
    ] {
        let mut manifest = manifest();
        for (field, value) in change.as_object().unwrap() {
            manifest["spec"]["training"][field] = value.clone();
        }
        let run = Run::new(&manifest);
        run.finish();
        assert_outputs_complete(&run, manifest["spec"]["training"]["schedule"]["epochs"].as_u64().unwrap());
        let results = run.results();
        let clean = results["clean"]["correct"].as_u64().unwrap();
        let robust = results["worstCase"]["correct"].as_u64().unwrap();
        println!("{name}: clean {clean}, robust {robust} of 1000");
        assert!(clean > 900 && robust > 500, "{name}: {results}");
        if change.get("smoothing").is_some() {
            assert_sweep_and_certification(&run, &results);
        }
    }
}

/// The sweep, the certified accuracies and their plots are complete.
fn assert_sweep_and_certification(run: &Run, results: &Value) {
    let [large_epsilon, few_steps] = [0, 1].map(|point| &results["sweep"][point]);
    assert_eq!(
        (&large_epsilon["epsilon"], &large_epsilon["steps"]),
        (&"3.0".into(), &20.into()),
        "{results}"
    );
    assert_eq!((&few_steps["epsilon"], &few_steps["steps"]), (&"0.5".into(), &2.into()), "{results}");
    assert!(large_epsilon["correct"].as_u64() < few_steps["correct"].as_u64(), "{results}");
    let small_radius = &results["certified"][3];
    assert_eq!((&small_radius["radius"], &small_radius["total"]), (&"0.15".into(), &20.into()), "{results}");
    assert!(small_radius["correct"].as_u64().unwrap() > 10, "{results}");
    let report = fs::read_to_string(run.file("report.html")).unwrap();
    for title in ["Accuracy against ε", "Accuracy against steps", "Certified accuracy by radius"] {
        assert!(report.contains(title), "{title}");
    }
}
