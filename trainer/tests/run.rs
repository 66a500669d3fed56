//! `dat-trainer run` as a person uses it: real processes, a data set that the test makes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use datjob_api::Training;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "common/folder.rs"]
mod folder;
#[path = "common/pictures.rs"]
mod pictures;
#[path = "common/run.rs"]
mod run;

use pictures::pictures as data;
use run::{Run, manifest};

/// The worker processes of an agent.
fn workers(agent: &Child) -> Vec<u32> {
    let parent = agent.id();
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(") ").next().unwrap_or_default();
            after_name.split(' ').nth(1).and_then(|field| field.parse().ok()) == Some(parent)
        })
        .collect()
}

fn kill(id: u32) {
    assert!(Command::new("kill").args(["-9", &id.to_string()]).status().unwrap().success());
}

/// What a run came to: its results, and the hash of the last weights, which are seldom the best ones.
fn outcome(run: &Run) -> Value {
    let last = run.json("results.json")["last"].clone();
    json!({"results": run.results(), "last": last})
}

/// The outcome of a run without any disturbance.
fn undisturbed() -> &'static Value {
    static OUTCOME: OnceLock<Value> = OnceLock::new();
    OUTCOME.get_or_init(|| {
        let run = Run::new(&manifest());
        let text = run.finish();
        assert!(text.contains("95 % interval") && text.contains("pgd-2 "), "{text}");
        outcome(&run)
    })
}

#[test]
fn it_learns_and_a_seed_gives_the_same_run_twice() {
    let first = &undisturbed()["results"];
    assert_eq!(first["clean"]["total"], 1_000);
    assert!(first["clean"]["correct"].as_u64().unwrap() > 900, "{first}");
    assert!(first["worstCase"]["correct"].as_u64().unwrap() > 500, "{first}");
    let second = Run::new(&manifest());
    second.finish();
    assert_eq!(&outcome(&second), undisturbed(), "the weights' hashes are part of it");
    whole(&second, 3);
    evaluated_again(&second, first);
    fine_tuned(&second, first);
}

/// Training that begins with a run's weights keeps what they know, with the same last layer or a new one.
fn fine_tuned(pretrained: &Run, results: &Value) {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    // The new layer of the same seed would be the one that the weights were trained with.
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
        Ok(run.results()["clean"]["correct"].as_u64().unwrap())
    };
    let weights = pretrained.file("best.safetensors");
    let before = results["clean"]["correct"].as_u64().unwrap();
    let kept = tune(&manifest, &weights).unwrap();
    assert!(kept.abs_diff(before) < 5, "{before} correct before, {kept} after tiny steps");
    manifest["spec"]["training"]["model"]["initialWeights"]["newHead"] = true.into();
    let begun = tune(&manifest, &weights).unwrap();
    assert!(begun + 100 < kept, "a new last layer is random: {begun} correct, {kept} with the old one");

    let wrong = tune(&manifest, &pretrained.file("results.json")).unwrap_err();
    assert!(wrong.contains("model.initialWeights") && wrong.contains("results.json"), "{wrong}");
    manifest["spec"]["training"]["model"]["architecture"] = "resnet18".into();
    let other = tune(&manifest, &weights).unwrap_err();
    assert!(other.contains("do not match the network") && other.contains("conv1"), "{other}");
}

/// All that a training leaves is there, and says the same.
fn whole(run: &Run, epochs: u64) {
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
    assert!(!document["device"].as_str().unwrap().is_empty());
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
    assert_eq!(events_in(&fs::read(events[0].path()).unwrap()), 1 + epochs as usize);

    let share = format!("{percent:.2}");
    assert_eq!(run.json("model_card.json")["clean_acc"], share);
    for (name, part) in [("MODEL_CARD.md", &sha256("best.safetensors")), ("report.html", &share)] {
        let text = fs::read_to_string(run.file(name)).unwrap();
        assert!(text.contains(part) && text.contains(&share), "{name}: {text}");
    }
    let partial = |name: &str| Path::new(name).extension().is_some_and(|end| end == "partial");
    let names = fs::read_dir(run.file("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !partial(name.to_str().unwrap())));
}

/// The number of TFRecords in a file.
fn events_in(mut file: &[u8]) -> usize {
    let mut count = 0;
    while let Some((length, _)) = file.split_first_chunk::<8>() {
        // Twelve bytes before a message and four behind it.
        file = &file[16 + u64::from_le_bytes(*length) as usize..];
        count += 1;
    }
    count
}

/// The newest checkpoint is lost with what came after it: the history has each epoch once, as it was trained last.
#[test]
fn a_history_goes_on_without_a_future_that_was_lost() {
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
    assert_eq!(&outcome(&run), undisturbed());
    whole(&run, 3);
    let after = run.json("history.json");
    assert_eq!(after["startedAt"], before["startedAt"]);
    assert_eq!(after["epochs"][0], before["epochs"][0]);
    assert_ne!(after["epochs"][1]["endedAt"], before["epochs"][1]["endedAt"]);
    assert_eq!(after["epochs"][1]["loss"], before["epochs"][1]["loss"], "the same epoch, trained again");
    for file in ["best.safetensors", "last.safetensors", "report.html", "MODEL_CARD.md", "results.json"] {
        assert!(text.lines().last().unwrap().contains(file), "{text}");
    }
}

/// Files beside good weights that cannot be written are told, and the job succeeds.
#[test]
fn what_cannot_be_written_is_told_and_fails_nothing() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    let run = Run::new(&manifest);
    let taken = ["history.json", "last.safetensors", "MODEL_CARD.md", "model_card.json", "report.html"];
    for name in taken {
        fs::create_dir_all(run.file(name)).unwrap();
    }
    fs::write(run.file("tensorboard"), "").unwrap();
    let text = run.finish();
    let document = run.json("results.json");
    let sentences = document["notWritten"].as_array().unwrap();
    assert_eq!(sentences.len(), 6, "{document}");
    for name in taken {
        let sentence = format!("cannot write {}", run.file(name).display());
        assert!(sentences.iter().any(|told| told.as_str().unwrap().starts_with(&sentence)), "{document}");
        assert!(text.contains(&format!("warning: {sentence}")), "{text}");
    }
    assert_eq!(document["last"], Value::Null);
    let weights = fs::read(run.file("best.safetensors")).unwrap();
    assert_eq!(document["results"]["sha256"], hex::encode(Sha256::digest(weights)));
}

/// `dat-trainer evaluate` of a run's weights gives its counts; of other files, a sentence.
fn evaluated_again(run: &Run, results: &Value) {
    let evaluate = |weights: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_dat-trainer"))
            .arg("evaluate")
            .arg(weights)
            .arg("--manifest")
            .arg(run.directory.path().join("job.yaml"))
            .arg("--data")
            .arg(data())
            // As many threads as a worker had: the order of sums is then the same.
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
fn a_killed_worker_costs_time_and_nothing_else() {
    let run = Run::new(&manifest());
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    let workers = workers(&agent);
    assert_eq!(workers.len(), 2);
    kill(workers[1]);
    assert!(agent.wait().unwrap().success());
    assert_eq!(&outcome(&run), undisturbed());
    assert_eq!(fs::read_to_string(run.file("generation")).unwrap(), "2");
}

#[test]
fn a_run_that_was_killed_as_a_whole_goes_on_and_leaves_no_process() {
    let run = Run::new(&manifest());
    let mut agent = run.start();
    run.wait_for("checkpoint-0002.json");
    let workers = workers(&agent);
    kill(agent.id());
    agent.wait().unwrap();
    let started = Instant::now();
    while workers.iter().any(|id| is_worker(*id)) {
        assert!(started.elapsed() < Duration::from_secs(30), "workers still run 30 s after their agent");
        thread::sleep(Duration::from_millis(50));
    }
    run.finish();
    assert_eq!(&outcome(&run), undisturbed());
    whole(&run, 3);
    // Once more: the end was reached, nothing is trained again.
    let weights = fs::metadata(run.file("best.safetensors")).unwrap().modified().unwrap();
    assert!(run.finish().contains("95 % interval"));
    assert_eq!(fs::metadata(run.file("best.safetensors")).unwrap().modified().unwrap(), weights);
}

fn is_worker(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.ends_with(b"\0worker\0"))
}

#[test]
fn what_cannot_be_run_says_why() {
    let empty = tempfile::tempdir().unwrap();
    let message = Run::new(&manifest()).fail(empty.path());
    assert!(message.contains("the folder train or val is missing"), "{message}");

    let mut wrong = manifest();
    wrong["spec"]["training"]["threatModel"]["epsilon"] = "8".into();
    let message = Run::new(&wrong).fail(data());
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
fn a_directory_of_another_training_is_refused() {
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

    // The same training on a folder of which one test image has another name.
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
fn a_target_that_is_missed_fails_the_run_and_keeps_its_weights() {
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

/// What training came to is written as a collapse into its checkpoint: the next evaluation goes back.
#[test]
fn catastrophic_overfitting_goes_back_to_the_best_weights() {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["threatModel"]["epsilon"] = "0.5".into();
    training["catastrophicOverfitting"] = json!({"response": "GoBack"});
    let run = Run::new(&manifest);
    let mut agent = run.start();
    run.wait_for("checkpoint-0001.json");
    kill(agent.id());
    agent.wait().unwrap();
    let path = run.file("checkpoint-0001.json");
    let mut checkpoint: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(checkpoint["stepScale"], 1.0);
    checkpoint["best"]["robust"]["correct"] = 200.into();
    checkpoint["best"]["singleStep"]["correct"] = 0.into();
    fs::write(&path, checkpoint.to_string()).unwrap();

    let text = run.finish();
    let sentence = "fell from 100.00 % (epoch 1) to ";
    assert!(text.contains("Epoch 2: catastrophic overfitting") && text.contains(sentence), "{text}");
    let sentence = "continues from the weights of epoch 1 with the step size multiplied by 0.5";
    assert!(text.contains(sentence), "{text}");
    assert!(text.contains("Epoch 3: catastrophic overfitting"), "{text}");
    let last: Value = serde_json::from_slice(&fs::read(run.file("checkpoint-0003.json")).unwrap()).unwrap();
    // 3,800 images in steps of 64: two epochs had passed when the optimizer began anew.
    assert_eq!(last["optimizerBegin"], 120);
    assert_eq!(last["stepScale"], 0.5, "training does not go back after the last epoch");
    assert_eq!(run.results()["bestEpoch"], 1);
}

#[test]
fn rounding_at_random_and_overlap_give_the_same_run_too_where_it_was_killed() {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["schedule"]["epochs"] = 2.into();
    training["attack"]["overlap"] = true.into();
    training["communication"] = json!({"compression": {"int8": {}}});
    let [undisturbed, killed] = [(); 2].map(|()| Run::new(&manifest));
    undisturbed.finish();
    let mut agent = killed.start();
    killed.wait_for("checkpoint-0001.json");
    kill(agent.id());
    agent.wait().unwrap();
    killed.finish();
    assert_eq!(outcome(&undisturbed), outcome(&killed), "the weights' hashes are part of it");
}

/// Changes to the manifest under which the pictures are learned too: every attack, objective and optimizer once.
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
        whole(&run, manifest["spec"]["training"]["schedule"]["epochs"].as_u64().unwrap());
        let results = run.results();
        let clean = results["clean"]["correct"].as_u64().unwrap();
        let robust = results["worstCase"]["correct"].as_u64().unwrap();
        println!("{name}: clean {clean}, robust {robust} of 1000");
        assert!(clean > 900 && robust > 500, "{name}: {results}");
        if change.get("smoothing").is_some() {
            let [far, steps] = [0, 1].map(|point| &results["sweep"][point]);
            assert_eq!((&far["epsilon"], &far["steps"]), (&"3.0".into(), &20.into()), "{results}");
            assert_eq!((&steps["epsilon"], &steps["steps"]), (&"0.5".into(), &2.into()), "{results}");
            assert!(far["correct"].as_u64() < steps["correct"].as_u64(), "{results}");
            let near = &results["certified"][3];
            assert_eq!((&near["radius"], &near["total"]), (&"0.15".into(), &20.into()), "{results}");
            assert!(near["correct"].as_u64().unwrap() > 10, "{results}");
            let report = fs::read_to_string(run.file("report.html")).unwrap();
            for title in ["Accuracy against ε", "Accuracy against steps", "Certified accuracy by radius"] {
                assert!(report.contains(title), "{title}");
            }
        }
    }
}
