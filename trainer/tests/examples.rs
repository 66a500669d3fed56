//! Runs every example with a smaller size, data set and network, so that it takes seconds.

use std::{fs, path::Path};

use serde_json::{Value, json};

#[path = "common/npz.rs"]
mod npz;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/synthetic_mnist.rs"]
mod synthetic_mnist;
#[path = "common/test_directory.rs"]
mod test_directory;

use run::{Run, manifest, mnist_manifest};
use serde::Deserialize as _;
use synthetic_image_folder::synthetic_image_folder;
use synthetic_mnist::synthetic_mnist;

/// Examples with other data formats, which have separate tests.
const TESTED_ELSEWHERE: [&str; 1] = ["imagenet.yaml"];

/// The DatJob in an example file.
fn read_example(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.lines().count() < 60, "{}", path.display());
    let mut documents =
        serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    documents.find(|document| document["kind"] == "DatJob").unwrap()
}

/// Trains for one epoch; the run has the weights.
fn train_weights(mut manifest: Value, data: &Path) -> Run {
    let training = &mut manifest["spec"]["training"];
    training["threatModel"]["epsilon"] = "0.02".into();
    training["schedule"] = json!({"epochs": 1, "batchSize": 32});
    let run = Run::new(&manifest);
    run.finish_on(data);
    run
}

/// The job at a reduced size, with the data and the batch size of the training spec `short`.
fn reduced(mut job: Value, short: &Value) -> Value {
    job["metadata"]["name"] = "test".into();
    let training = &mut job["spec"]["training"];
    training["model"]["architecture"] = "small-cnn".into();
    for field in ["dataset", "imageSize", "validation"] {
        training["data"][field] = short["data"][field].clone();
    }
    if training["data"]["additional"].is_object() {
        training["data"]["additional"]["labels"]["teacher"]["model"] = json!({"architecture": "small-cnn"});
    }
    let attack = training["attack"].as_object_mut();
    for steps in
        attack.into_iter().flat_map(|attack| attack.values_mut()).filter_map(|spec| spec.get_mut("steps"))
    {
        *steps = 1.into();
    }
    let is_pretrained = training["model"]["initialWeights"].is_object();
    // The learning rates of the examples do not suit this network and number of steps.
    if let Some(optimizer) = training.get_mut("optimizer").and_then(Value::as_object_mut) {
        for (name, spec) in optimizer {
            spec["learningRate"] = match name.as_str() {
                "sgd" if is_pretrained => 0.01.into(),
                "sgd" => 0.05.into(),
                _ => 0.02.into(),
            };
        }
    }
    // An epoch is short for a large perturbation.
    if training["threatModel"]["norm"] != "L2" {
        training["threatModel"]["epsilon"] = "0.02".into();
        for spec in training["attack"].as_object_mut().into_iter().flat_map(|attack| attack.values_mut()) {
            spec.as_object_mut().map(|spec| spec.remove("stepSize"));
        }
    }
    let schedule = &mut training["schedule"];
    schedule["epochs"] = 1.into();
    schedule["batchSize"] = 32.into();
    if let Some(schedule) = schedule.as_object_mut() {
        schedule.remove("warmupEpochs");
    }
    training["evaluation"] = json!({"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 1}}]});
    job
}

#[test]
fn every_example_runs_at_reduced_size() {
    // Weights for the examples with initial weights, and for the one with a teacher.
    let image_folder_run = train_weights(manifest(), synthetic_image_folder());
    let mnist_run = train_weights(mnist_manifest(), synthetic_mnist());
    let images = mnist_run.directory.path().join("images.npz");
    npz::write(&images, &vec![100; 100 * 28 * 28], None);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    let mut examples_run = 0;
    let mut at_chance = Vec::new();
    for path in examples {
        if TESTED_ELSEWHERE.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let job = read_example(&path);
        // Additional images require a data set of standard files.
        let (short, data, trained_run) = if job["spec"]["training"]["data"]["additional"].is_object() {
            (mnist_manifest(), synthetic_mnist(), &mnist_run)
        } else {
            (manifest(), synthetic_image_folder(), &image_folder_run)
        };
        let weights = trained_run.file("best.safetensors");
        let job = reduced(job, &short["spec"]["training"]);
        let run = Run::new(&job);
        let mut command = run.command(data);
        let training = &job["spec"]["training"];
        let additional = &training["data"]["additional"];
        for (field, option, file) in [
            (&training["model"]["initialWeights"], "--initial-weights", &weights),
            (additional, "--additional-images", &images),
            (&additional["labels"]["teacher"], "--teacher-weights", &weights),
        ] {
            if field.is_object() {
                command.arg(option).arg(file);
            }
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", path.display());
        let results = run.results();
        let clean = results["clean"]["correct"].as_u64().unwrap();
        println!("{}: {clean} of {}", path.display(), results["clean"]["total"]);
        // Chance is a tenth, with a standard error of less than a hundredth.
        if clean * 20 <= results["clean"]["total"].as_u64().unwrap() * 3 {
            at_chance.push(format!("{}: {results}", path.display()));
        }
        examples_run += 1;
    }
    assert!(at_chance.is_empty(), "{at_chance:?}");
    assert!(examples_run >= 8);
}
