//! Every example runs: as it is but for its size, data set and network, so that it takes seconds.

use std::{fs, path::Path};

use serde_json::{Value, json};

#[path = "common/folder.rs"]
mod folder;
#[path = "common/npz.rs"]
mod npz;
#[path = "common/pictures.rs"]
mod pictures;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "common/squares.rs"]
mod squares;

use run::{Run, manifest, manifest_of_squares};
use serde::Deserialize as _;

/// Examples that need data of another form have tests of their own.
const ELSEWHERE: [&str; 1] = ["imagenet.yaml"];

/// The DatJob of a file of examples.
fn example(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.lines().count() < 60, "{}", path.display());
    let mut documents =
        serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    documents.find(|document| document["kind"] == "DatJob").unwrap()
}

/// Weights that a short training of `manifest` on `data` ends with; the folder that they lie in.
fn trained(mut manifest: Value, data: &Path) -> Run {
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    let run = Run::new(&manifest);
    run.finish_on(data);
    run
}

/// The same in small, with the data and the schedule of `short`.
fn in_small(mut job: Value, short: &Value) -> Value {
    job["metadata"]["name"] = "test".into();
    let training = &mut job["spec"]["training"];
    training["model"]["architecture"] = "small-cnn".into();
    for field in ["dataset", "imageSize", "validation"] {
        training["data"][field] = short["data"][field].clone();
    }
    if training["data"]["additional"].is_object() {
        training["data"]["additional"]["labels"]["teacher"]["model"] = json!({"architecture": "small-cnn"});
    }
    if training["attack"]["pgd"].is_object() {
        training["attack"]["pgd"]["steps"] = 1.into();
    }
    // Rates are for their own networks and numbers of steps.
    if let Some(optimizer) = training.get_mut("optimizer").and_then(Value::as_object_mut) {
        optimizer.values_mut().for_each(|spec| spec["learningRate"] = 0.01.into());
    }
    let schedule = &mut training["schedule"];
    schedule["epochs"] = 1.into();
    schedule["batchSize"] = short["schedule"]["batchSize"].clone();
    if let Some(schedule) = schedule.as_object_mut() {
        schedule.remove("warmupEpochs");
    }
    training["evaluation"] = json!({"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 1}}]});
    job
}

#[test]
fn every_example_runs_in_small() {
    // Weights for the examples that begin with some, and for the one that has a teacher.
    let pictures = trained(manifest(), pictures::pictures());
    let squares = trained(manifest_of_squares(), squares::squares());
    let images = squares.directory.path().join("images.npz");
    npz::write(&images, &vec![100; 100 * 28 * 28], None);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    let mut run_ones = 0;
    for path in examples {
        if ELSEWHERE.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let job = example(&path);
        // Images beside the data set go with one that lies in memory.
        let (short, data, trained) = if job["spec"]["training"]["data"]["additional"].is_object() {
            (manifest_of_squares(), squares::squares(), &squares)
        } else {
            (manifest(), pictures::pictures(), &pictures)
        };
        let weights = trained.file("best.safetensors");
        let run = Run::new(&in_small(job, &short["spec"]["training"]));
        let mut command = run.command(data);
        command.arg("--initial-weights").arg(&weights);
        command.arg("--teacher-weights").arg(&weights).arg("--additional-images").arg(&images);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}", path.display());
        assert!(run.results()["clean"]["correct"].as_u64().unwrap() > 0);
        run_ones += 1;
    }
    assert!(run_ones >= 8);
}
