//! Every method with tensors on a GPU. Most run with two workers that share the GPU, so that gradients are exchanged.

use std::fs;

use serde_json::{Value, json};

use super::{clean_accuracy, command, gpu, manifest, npz, results, synthetic_mnist::synthetic_mnist};

/// Additional images in the archives of these tests.
const IMAGES: usize = 2000;

/// Trains for one epoch with the given parts of `spec.training` and returns the results.
fn train(changes: &Value, files: &[[&str; 2]]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let mut manifest = manifest("Gloo");
    let training = &mut manifest["spec"]["training"];
    training["schedule"]["epochs"] = 1.into();
    merge(training, changes);
    let mut command = command(&manifest, directory.path(), &["--gpus", "1", "--workers", "2"]);
    let output = command.args(files.concat()).output().unwrap();
    assert!(output.status.success(), "{changes}: {}", String::from_utf8_lossy(&output.stderr));
    results(directory.path())
}

/// JSON Merge Patch (RFC 7396): null removes a field.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut target[field], value);
        }
    }
}

#[test]
fn every_method_trains_on_the_gpu() {
    let Some((_, _lock)) = gpu() else { return };
    let pgd = json!({"pgd": {"steps": 2}, "fgsm": null});
    let methods = [
        ("overlap", json!({"attack": {"overlap": true}})),
        (
            "int8, overlap",
            json!({"attack": {"overlap": true}, "communication": {"compression": {"int8": {}}}}),
        ),
        (
            "int8, one side, error feedback",
            json!({"communication": {"compression": {"int8": {"sides": 1, "errorFeedback": true}}}}),
        ),
        ("fp16", json!({"communication": {"compression": {"fp16": {}}}})),
        ("bf16", json!({"communication": {"compression": {"bf16": {}}}})),
        ("local steps", json!({"schedule": {"localSteps": 4}})),
        (
            "N-FGSM, CutMix, cutout",
            json!({"attack": {"fgsm": null, "nFgsm": {}}, "data": {"augmentation": {"cutMix": {}, "cutout": 4}}}),
        ),
        (
            "TRADES, LAMB, EMA",
            json!({"attack": pgd, "objective": {"trades": {}}, "optimizer": {"lamb": {}}, "averaging": {"ema": {}}}),
        ),
        (
            "MART, AdamW, AWP",
            json!({"attack": pgd, "objective": {"mart": {}}, "optimizer": {"adamW": {}}, "weightPerturbation": {}}),
        ),
        (
            "clean weight, LARS",
            json!({"objective": {"crossEntropy": {"cleanWeight": 0.5, "labelSmoothing": 0.1}}, "optimizer": {"lars": {"learningRate": 2}}}),
        ),
        ("PGD in L2", json!({"attack": pgd, "threatModel": {"norm": "L2", "epsilon": "0.5"}})),
    ];
    for (name, changes) in methods {
        let clean = clean_accuracy(&train(&changes, &[]));
        println!("{name}: {clean:.2} % clean");
        assert!(clean > 95.0, "{name}: {clean}");
    }
}

#[test]
fn smoothed_network_is_certified_on_the_gpu() {
    let Some((_, _lock)) = gpu() else { return };
    let changes = json!({
        "attack": {"pgd": {"steps": 2}, "fgsm": null},
        "threatModel": {"norm": "L2", "epsilon": "0.25"},
        "smoothing": {"sigma": 0.1},
        "evaluation": {"certify": {"images": 50, "samples": 1000}}
    });
    let results = train(&changes, &[]);
    println!("{:.2} % clean, certified {}", clean_accuracy(&results), results["certified"]);
    let certified = &results["certified"][0];
    assert_eq!(certified["total"], 50);
    assert!(certified["correct"].as_u64().unwrap() >= 45, "{certified}");
}

#[test]
fn every_evaluation_attack_runs_on_the_gpu() {
    let Some((_, _lock)) = gpu() else { return };
    let attacks = json!([
        {"apgdCe": {"steps": 5}},
        {"apgdT": {"steps": 3, "targets": 2}},
        {"fabT": {"steps": 3, "targets": 2}},
        {"square": {"queries": 20}},
        {"cw": {"steps": 3}},
        {"pgd": {"steps": 5, "restarts": 2}}
    ]);
    // Training hardly attacks, so that every attack of the evaluation succeeds on some images.
    let changes = json!({
        "threatModel": {"epsilon": "0.4"},
        "attack": {"fgsm": null, "nFgsm": {"noise": 0, "stepSize": "0.001"}},
        "evaluation": {"final": attacks, "sweep": {"epsilon": ["0.05"], "steps": [2]}}
    });
    let results = train(&changes, &[]);
    println!("{}", results["attacks"]);
    assert_eq!(results["attacks"].as_array().unwrap().len(), attacks.as_array().unwrap().len());
    let correct = |value: &Value| value["correct"].as_u64().unwrap();
    for attack in results["attacks"].as_array().unwrap() {
        assert!(correct(attack) < correct(&results["clean"]), "{attack}");
        assert!(correct(&results["worstCase"]) <= correct(attack), "{attack}");
    }
}

#[test]
fn teacher_labels_additional_images_on_the_gpu() {
    let Some((_, _lock)) = gpu() else { return };
    let directory = tempfile::tempdir().unwrap();
    let output = command(&manifest("NCCL"), directory.path(), &["--gpus", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let weights = directory.path().join("checkpoints/gpu/best.safetensors");
    let archive = directory.path().join("images.npz");
    let images = fs::read(synthetic_mnist().join("t10k-images-idx3-ubyte")).unwrap();
    npz::write(&archive, &images[16..][..IMAGES * 784], None);

    let volume =
        |path: &str| json!({"volume": {"persistentVolumeClaim": {"claimName": "unused"}, "path": path}});
    let teacher = json!({"model": {"architecture": "small-cnn"}, "weights": volume("teacher.safetensors")});
    let additional = json!({"source": volume("images.npz"), "labels": {"teacher": teacher}, "perBatch": 0.5});
    let files = [
        ["--additional-images", archive.to_str().unwrap()],
        ["--teacher-weights", weights.to_str().unwrap()],
    ];
    let clean = clean_accuracy(&train(&json!({"data": {"additional": additional}}), &files));
    assert!(clean > 95.0, "{clean}");
}
