//! End-to-end tests of `dat-trainer run` and `evaluate`: real processes, a synthetic data set.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use datjob_api::Training;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "run/failures.rs"]
mod failures;
#[path = "common/interposer.rs"]
mod interposer;
#[path = "run/interruptions.rs"]
mod interruptions;
#[path = "run/logs.rs"]
mod logs;
#[path = "run/methods.rs"]
mod methods;
#[path = "common/processes.rs"]
mod processes;
#[path = "common/run.rs"]
mod run;
#[path = "run/storage.rs"]
mod storage;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/test_directory.rs"]
mod test_directory;

use run::{Run, manifest};
use synthetic_image_folder::synthetic_image_folder as data;

/// The results of a run and the hash of the last weights, which are rarely the best ones.
fn outcome(run: &Run) -> Value {
    let last = run.json("results.json")["last"].clone();
    json!({"results": run.results(), "last": last})
}

/// The outcome of a run without interruption.
fn uninterrupted_outcome() -> &'static Value {
    static OUTCOME: OnceLock<Value> = OnceLock::new();
    OUTCOME.get_or_init(|| {
        let run = Run::new(&manifest());
        let text = run.finish();
        assert!(text.contains("95 % interval") && text.contains("pgd-2 "), "{text}");
        outcome(&run)
    })
}

#[test]
fn learns_and_is_reproducible_for_a_seed() {
    let first = &uninterrupted_outcome()["results"];
    assert_eq!(first["clean"]["total"], 1_000);
    assert!(first["clean"]["correct"].as_u64().unwrap() > 900, "{first}");
    assert!(first["worstCase"]["correct"].as_u64().unwrap() > 950, "{first}");
    // The bar is above what training without an attack reaches.
    let mut clean = manifest();
    clean["spec"]["training"]["attack"] = json!({"nFgsm": {"noise": 0.0, "stepSize": "0.000001"}});
    let control = Run::new(&clean);
    control.finish();
    let control = control.results();
    assert!(control["clean"]["correct"].as_u64().unwrap() > 900, "{control}");
    assert!(control["worstCase"]["correct"].as_u64().unwrap() < 900, "{control}");
    let second = Run::new(&manifest());
    second.finish();
    assert_eq!(&outcome(&second), uninterrupted_outcome(), "includes the hashes of the weights");
    assert_outputs_complete(&second, 3);
    assert_evaluate_gives_the_same_counts(&second, first);
    assert_fine_tuning_starts_from_weights(&second, first);
}

/// Training from initial weights starts at their accuracy; a new last layer starts without it.
fn assert_fine_tuning_starts_from_weights(pretrained: &Run, results: &Value) {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    // With the same seed, the new layer would equal the initial layer of the pretrained network.
    training["seed"] = 4.into();
    let claim = json!({"claimName": "unused"});
    let source = json!({"volume": {"persistentVolumeClaim": claim, "path": "best.safetensors"}});
    training["model"]["initialWeights"] = json!({"source": source});
    training["schedule"]["epochs"] = 1.into();
    training["optimizer"] = json!({"sgd": {"learningRate": 0.000_001}});
    let message = Run::new(&manifest).fail(data());
    assert!(message.contains("model.initialWeights.source: volumes are not available"), "{message}");

    let tune = |manifest: &Value, weights: &Path| {
        let run = Run::new(manifest);
        let output = run.command(data()).arg("--initial-weights").arg(weights).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let correct = run.results()["clean"]["correct"].as_u64().unwrap();
        Ok((correct, String::from_utf8(output.stdout).unwrap()))
    };
    let weights = pretrained.file("best.safetensors");
    let before = results["clean"]["correct"].as_u64().unwrap();
    let (kept, text) = tune(&manifest, &weights).unwrap();
    assert!(kept.abs_diff(before) < 5, "{before} correct before, {kept} after tiny steps");
    let seen = "warning          spec.training.model.initialWeights: the weights were trained on images that this job holds \
                out for validation (theirs: 200 images with seed 0; this job's: 200 with seed 9)";
    assert!(!text.contains("warning"), "another training.seed holds out the same images: {text}");
    manifest["spec"]["training"]["data"]["validation"]["seed"] = 9.into();
    manifest["spec"]["training"]["model"]["initialWeights"]["newHead"] = true.into();
    let (new_head, text) = tune(&manifest, &weights).unwrap();
    assert!(text.contains(seen), "{text}");
    assert!(new_head + 100 < kept, "a new last layer is random: {new_head} correct, {kept} with the old one");

    let error = tune(&manifest, &pretrained.file("results.json")).unwrap_err();
    assert!(error.contains("model.initialWeights") && error.contains("results.json"), "{error}");
    manifest["spec"]["training"]["model"]["architecture"] = "resnet18".into();
    let error = tune(&manifest, &weights).unwrap_err();
    assert!(error.contains("do not match the network") && error.contains("conv1"), "{error}");
}

/// All output files exist and agree.
fn assert_outputs_complete(run: &Run, epochs: u64) {
    let document = run.json("results.json");
    let results = &document["results"];
    let sha256 = |name: &str| hex::encode(Sha256::digest(fs::read(run.file(name)).unwrap()));
    assert_eq!(results["sha256"], sha256("best.safetensors"));
    assert_eq!(document["last"]["sha256"], sha256("last.safetensors"));
    assert_eq!(document["last"]["epoch"], epochs);
    assert_eq!(document["notWritten"], Value::Null, "{document}");
    assert_eq!(document["training"]["seed"], results["seed"]);
    let training: Training = serde_json::from_value(document["training"].clone()).unwrap();
    assert_eq!(results["trainingHash"], training.hash());
    assert_eq!(results["devices"].as_array().unwrap().len(), 1, "{results}");
    assert!(!results["devices"][0].as_str().unwrap().is_empty());
    let clean = &document["accuracies"]["figures"][0];
    assert_eq!((&clean["name"], &clean["correct"]), (&"clean".into(), &results["clean"]["correct"]));
    let [lower, percent, upper] = ["lower", "percent", "upper"].map(|field| clean[field].as_f64().unwrap());
    assert!(lower < percent && percent <= upper, "{clean}");

    let history = run.json("history.json");
    assert_eq!(history["trainingHash"], results["trainingHash"]);
    let records = history["epochs"].as_array().unwrap();
    let numbers: Vec<u64> = records.iter().filter_map(|record| record["epoch"].as_u64()).collect();
    assert_eq!(numbers, (1..=epochs).collect::<Vec<_>>());
    let trained_on = &document["trainedOn"];
    let [all, held_out] =
        ["trainingImages", "validationCount"].map(|field| trained_on[field].as_u64().unwrap());
    let images = all - held_out;
    let exact = json!({"images": images, "distinctImages": images, "missingImages": 0, "repeatedImages": 0});
    assert!(records.iter().all(|record| record["samples"] == exact), "{history}");
    let ends: Vec<&str> = records.iter().filter_map(|record| record["endedAt"].as_str()).collect();
    assert!(ends.is_sorted() && ends.len() == records.len(), "{ends:?}");
    let robust = |record: &Value| record["accuracy"]["robust"]["correct"].as_u64().unwrap();
    let first_best = records.iter().rev().max_by_key(|record| robust(record)).unwrap();
    assert_eq!(first_best["epoch"], results["bestEpoch"]);
    assert_eq!(document["time"]["startedAt"], history["startedAt"]);
    assert_eq!(document["time"]["epochs"], epochs);
    let seconds = |value: &Value| value.as_f64().unwrap();
    let sum: f64 = records.iter().map(|record| seconds(&record["timing"]["epochSeconds"])).sum();
    assert!((seconds(&document["time"]["trainingSeconds"]) - sum).abs() < 0.1);

    let events: Vec<_> = fs::read_dir(run.file("tensorboard")).unwrap().map(Result::unwrap).collect();
    assert_eq!(events.len(), 1);
    assert!(events[0].file_name().to_str().unwrap().starts_with("events.out.tfevents."));
    assert_eq!(count_records(&fs::read(events[0].path()).unwrap()), 1 + epochs as usize);

    let percent = format!("{percent:.2}");
    assert_eq!(run.json("model_card.json")["clean_acc"], percent);
    for (name, part) in [("MODEL_CARD.md", &sha256("best.safetensors")), ("report.html", &percent)] {
        let text = fs::read_to_string(run.file(name)).unwrap();
        assert!(text.contains(part) && text.contains(&percent), "{name}: {text}");
    }
    let partial = |name: &str| Path::new(name).extension().is_some_and(|end| end == "partial");
    let names = fs::read_dir(run.file("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !partial(name.to_str().unwrap())));
}

/// The number of TFRecords in a file.
fn count_records(mut file: &[u8]) -> usize {
    let mut count = 0;
    while let Some((length, _)) = file.split_first_chunk::<8>() {
        // A record has twelve bytes before its message and four bytes after it.
        file = &file[16 + u64::from_le_bytes(*length) as usize..];
        count += 1;
    }
    count
}

/// `dat-trainer evaluate` of a run's weights gives the counts of the run; other files are rejected.
fn assert_evaluate_gives_the_same_counts(run: &Run, results: &Value) {
    let evaluate = |weights: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_dat-trainer"))
            .arg("evaluate")
            .arg(weights)
            .arg("--manifest")
            .arg(run.directory.path().join("job.yaml"))
            .arg("--data")
            .arg(data())
            // With the number of threads of a worker, the order of sums is the same.
            .env("OMP_NUM_THREADS", "1")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let text = evaluate(&run.file("best.safetensors")).unwrap();
    for count in [&results["clean"], &results["attacks"][0], &results["worstCase"]] {
        assert!(text.contains(&format!("({} of 1000 images)", count["correct"])), "{text} {results}");
    }
    let missing = evaluate(&run.file("none.safetensors")).unwrap_err();
    assert!(missing.contains("none.safetensors"), "{missing}");
    let no_weights = evaluate(&run.file("results.json")).unwrap_err();
    assert!(no_weights.contains("results.json") && no_weights.contains("safetensors"), "{no_weights}");
}
