//! Runs that cannot start, miss their target, or cannot write their output files.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    data,
    processes::kill,
    run::{Run, manifest},
};

/// A run with complete weights succeeds with a warning for every other output file that cannot be written.
#[test]
fn succeeds_with_warnings_if_output_files_cannot_be_written() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    let run = Run::new(&manifest);
    let unwritable = ["history.json", "last.safetensors", "MODEL_CARD.md", "model_card.json", "report.html"];
    for name in unwritable {
        fs::create_dir_all(run.file(name)).unwrap();
    }
    fs::write(run.file("tensorboard"), "").unwrap();
    let text = run.finish();
    let document = run.json("results.json");
    let errors = document["notWritten"].as_array().unwrap();
    assert_eq!(errors.len(), 6, "{document}");
    for name in unwritable {
        let expected = format!("cannot write {}", run.file(name).display());
        assert!(errors.iter().any(|error| error.as_str().unwrap().starts_with(&expected)), "{document}");
        assert!(text.contains(&format!("warning: {expected}")), "{text}");
    }
    assert_eq!(document["last"], Value::Null);
    let weights = fs::read(run.file("best.safetensors")).unwrap();
    assert_eq!(document["results"]["sha256"], hex::encode(Sha256::digest(weights)));
}

#[test]
fn reports_why_a_run_cannot_start() {
    let empty = tempfile::tempdir().unwrap();
    let message = Run::new(&manifest()).fail(empty.path());
    assert!(message.contains("the folder train or val is missing"), "{message}");

    let mut invalid = manifest();
    invalid["spec"]["training"]["threatModel"]["epsilon"] = "8".into();
    let message = Run::new(&invalid).fail(data());
    assert!(message.contains("spec.training.threatModel.epsilon: invalid value 8: must be"), "{message}");

    let mut unknown = manifest();
    unknown["spec"]["training"]["attack"] = json!({"pgd": {"step": 1}});
    let message = Run::new(&unknown).fail(data());
    assert!(message.contains("unknown field `step`"), "{message}");

    for (option, expected) in [
        (
            ["--initial-weights", "a.pt"],
            "--initial-weights: the manifest does not set spec.training.model.initialWeights",
        ),
        (
            ["--teacher-weights", "a.pt"],
            "--teacher-weights: the manifest does not set spec.training.data.additional",
        ),
        (["--gpus", "4"], "--gpus (4) exceeds --workers (2)"),
    ] {
        let output = Run::new(&manifest()).command(data()).args(option).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(expected), "{message}");
    }

    let run = Run::new(&manifest());
    fs::create_dir_all(run.file("")).unwrap();
    fs::write(run.file("generation"), "many").unwrap();
    let message = run.fail(data());
    assert!(message.contains("invalid generation \"many\" in "), "{message}");
}

#[test]
fn rejects_checkpoints_of_another_training() {
    let run = Run::new(&manifest());
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    kill(agent.id());
    agent.wait().unwrap();
    let mut other = manifest();
    other["spec"]["training"]["seed"] = 4.into();
    fs::write(run.directory.path().join("job.yaml"), other.to_string()).unwrap();
    let message = run.fail(data());
    assert!(message.contains("belongs to another training spec"), "{message}");

    // The same training on a data set in which one test image has another name.
    fs::write(run.directory.path().join("job.yaml"), manifest().to_string()).unwrap();
    let changed = tempfile::tempdir().unwrap();
    symlink(data().join("train"), changed.path().join("train")).unwrap();
    for image in fs::read_dir(data().join("val/0")).unwrap().map(|image| image.unwrap().path()) {
        let name = image.file_name().unwrap().to_str().unwrap().replace("0042", "another");
        fs::create_dir_all(changed.path().join("val/0")).unwrap();
        symlink(&image, changed.path().join("val/0").join(name)).unwrap();
    }
    for class in (1..10).map(|class| format!("val/{class}")) {
        symlink(data().join(&class), changed.path().join(class)).unwrap();
    }
    let message = run.fail(changed.path());
    assert!(message.contains("belongs to a training on different images"), "{message}");
}

#[test]
fn missed_target_fails_the_run_and_keeps_the_weights() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    manifest["spec"]["training"]["evaluation"]["target"] = json!({"attack": "pgd-2", "accuracy": 100});
    let run = Run::new(&manifest);
    let message = run.fail(data());
    assert!(message.contains("Robust accuracy under pgd-2 is "), "{message}");
    assert!(message.contains("less than evaluation.target.accuracy (100 %)"), "{message}");
    let results = run.results();
    let by_class = &results["byClass"];
    assert_eq!(by_class["total"].as_array().unwrap().len(), 10);
    let sum: u64 = by_class["clean"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
    assert_eq!(results["clean"]["correct"], sum);
    assert!(run.file("best.safetensors").exists());
}
