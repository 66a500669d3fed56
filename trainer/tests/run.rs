//! End-to-end tests of `dat-trainer run` and `evaluate`: real processes, a synthetic data set.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use datjob_api::Training;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "common/processes.rs"]
mod processes;
#[path = "common/run.rs"]
mod run;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/test_directory.rs"]
mod test_directory;

use processes::{is_worker, kill, worker_pids};
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

/// After the newest checkpoints are lost, the history has each epoch once, with the values of the last training of it.
#[test]
fn history_replaces_epochs_that_are_trained_again() {
    let run = Run::new(&manifest());
    let mut agent = run.start();
    run.wait_for("checkpoint-0002.json");
    kill(agent.id());
    agent.wait().unwrap();
    for epoch in ["checkpoint-0002.json", "checkpoint-0003.json"] {
        let _ = fs::remove_file(run.file(epoch));
    }
    let before = run.json("history.json");
    assert!(before["epochs"].as_array().unwrap().len() >= 2);
    let text = run.finish();
    assert_eq!(&outcome(&run), uninterrupted_outcome());
    assert_outputs_complete(&run, 3);
    let after = run.json("history.json");
    assert_eq!(after["startedAt"], before["startedAt"]);
    assert_eq!(after["epochs"][0], before["epochs"][0]);
    assert_ne!(after["epochs"][1]["endedAt"], before["epochs"][1]["endedAt"]);
    assert_eq!(after["epochs"][1]["loss"], before["epochs"][1]["loss"], "the same epoch, trained again");
    for file in ["best.safetensors", "last.safetensors", "report.html", "MODEL_CARD.md", "results.json"] {
        assert!(text.lines().last().unwrap().contains(file), "{text}");
    }
}

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

#[test]
fn killed_worker_does_not_change_the_outcome() {
    let run = Run::new(&manifest());
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    let workers = worker_pids(&agent);
    assert_eq!(workers.len(), 2);
    kill(workers[1]);
    assert!(agent.wait().unwrap().success());
    assert_eq!(&outcome(&run), uninterrupted_outcome());
    assert_eq!(fs::read_to_string(run.file("generation")).unwrap(), "2");
}

/// An epoch is saved before it is validated, so that a failed validation does not cost it.
#[test]
fn a_run_that_is_killed_in_a_validation_resumes_with_it() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    manifest["spec"]["training"]["evaluation"]["during"] = json!({"pgd": {"steps": 100}});
    let run = Run::new(&manifest);
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    let checkpoint = run.json("checkpoint-0001.json");
    kill(agent.id());
    agent.wait().unwrap();
    assert_eq!((&checkpoint["validationPending"], &checkpoint["best"]), (&true.into(), &Value::Null));
    run.finish();
    let records = run.json("history.json")["epochs"].clone();
    assert_eq!(records.as_array().unwrap().len(), 1, "the epoch is not trained again: {records}");
    assert_eq!(records[0]["accuracy"]["robust"]["attack"], "pgd-100");
    assert_eq!(run.json("checkpoint-0001.json")["validationPending"], false);
    assert_eq!(run.results()["bestEpoch"], 1);
}

#[test]
fn killed_run_resumes_and_leaves_no_worker_processes() {
    let run = Run::new(&manifest());
    let mut agent = run.start();
    run.wait_for("checkpoint-0002.json");
    let ended_at = |run: &Run| run.json("history.json")["epochs"][0]["endedAt"].clone();
    let first_epoch = ended_at(&run);
    let workers = worker_pids(&agent);
    kill(agent.id());
    agent.wait().unwrap();
    let started = Instant::now();
    while workers.iter().any(|pid| is_worker(*pid)) {
        assert!(started.elapsed() < Duration::from_secs(30), "workers still run 30 s after their agent");
        thread::sleep(Duration::from_millis(50));
    }
    run.finish();
    assert_eq!(&outcome(&run), uninterrupted_outcome());
    assert_eq!(ended_at(&run), first_epoch, "the first epoch is not trained again");
    assert_outputs_complete(&run, 3);
    // Another run finds the results and does not train again.
    let weights = fs::metadata(run.file("best.safetensors")).unwrap().modified().unwrap();
    assert!(run.finish().contains("95 % interval"));
    assert_eq!(fs::metadata(run.file("best.safetensors")).unwrap().modified().unwrap(), weights);
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

/// The test edits a checkpoint so that the next evaluation detects catastrophic overfitting.
#[test]
fn catastrophic_overfitting_restores_the_best_weights() {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["threatModel"]["epsilon"] = "0.5".into();
    training["catastrophicOverfitting"] = json!({"response": "GoBack"});
    let run = Run::new(&manifest);
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    let started = Instant::now();
    while run.json("checkpoint-0001.json")["validationPending"] != false {
        assert!(started.elapsed() < Duration::from_mins(1), "the epoch is not validated after a minute");
        thread::sleep(Duration::from_millis(10));
    }
    kill(agent.id());
    agent.wait().unwrap();
    let path = run.file("checkpoint-0001.json");
    let mut checkpoint = run.json("checkpoint-0001.json");
    assert_eq!(checkpoint["stepScale"], 1.0);
    checkpoint["best"]["robust"]["correct"] = 200.into();
    checkpoint["overfittingReference"]["robust"]["correct"] = 200.into();
    checkpoint["overfittingReference"]["singleStep"]["correct"] = 0.into();
    fs::write(&path, checkpoint.to_string()).unwrap();

    let text = run.finish();
    let expected = "fell from 100.00 % (epoch 1) to ";
    assert!(text.contains("Epoch 2: catastrophic overfitting") && text.contains(expected), "{text}");
    let expected = "continues from the weights of epoch 1 with the step size multiplied by 0.5";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("Epoch 3: catastrophic overfitting"), "{text}");
    let last: Value = serde_json::from_slice(&fs::read(run.file("checkpoint-0003.json")).unwrap()).unwrap();
    // An epoch has 3,800 images in steps of 64. The optimizer restarts after two epochs.
    assert_eq!(last["optimizerBegin"], 120);
    assert_eq!(last["stepScale"], 0.5, "training does not go back after the last epoch");
    assert_eq!(run.results()["bestEpoch"], 1);
    // The checkpoint that it went back from stays valid: a run that resumes from it validates, and goes back, again.
    let left = run.json("checkpoint-0002.json");
    assert_eq!((&left["validationPending"], &left["stepScale"]), (&true.into(), &1.0.into()));
    let tensors = fs::read(run.file("checkpoint-0002.safetensors")).unwrap();
    assert_eq!(left["sha256"], hex::encode(Sha256::digest(tensors)));
}

/// 0.1.0 drew the validation split by the training's seed; its checkpoints do not name a seed.
#[test]
fn a_checkpoint_of_an_older_release_keeps_its_validation_split() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 2.into();
    let run = Run::new(&manifest);
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    kill(agent.id());
    agent.wait().unwrap();
    let path = run.file("checkpoint-0001.json");
    let mut checkpoint: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fields = checkpoint.as_object_mut().unwrap();
    assert_eq!(fields.remove("validationSeed"), Some(0.into()));
    fields.remove("validationPending");
    fields.remove("overfittingReference");
    fs::write(&path, checkpoint.to_string()).unwrap();
    run.finish();
    let seed = manifest["spec"]["training"]["seed"].as_u64().unwrap();
    assert_ne!(seed, 0);
    assert_eq!(run.json("results.json")["trainedOn"]["validationSeed"], seed);
}

#[test]
fn killed_run_with_stochastic_rounding_and_overlap_is_reproducible() {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["schedule"]["epochs"] = 2.into();
    training["attack"]["overlap"] = true.into();
    training["communication"] = json!({"compression": {"int8": {}}});
    let [uninterrupted, killed] = [(); 2].map(|()| Run::new(&manifest));
    uninterrupted.finish();
    let mut agent = killed.start();
    killed.wait_for("checkpoint-0001.json");
    kill(agent.id());
    agent.wait().unwrap();
    killed.finish();
    assert_eq!(outcome(&uninterrupted), outcome(&killed), "includes the hashes of the weights");
}

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
