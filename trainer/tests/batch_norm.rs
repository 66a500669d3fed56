//! Runs of a network with BatchNorm on 100 images: what ranks share, what a step leaves, what a checkpoint keeps.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use datjob_adversarial::state_dict;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};

#[path = "common/imagenet.rs"]
#[expect(dead_code, reason = "shared with image_folder.rs")]
mod imagenet;
#[path = "common/processes.rs"]
#[expect(dead_code, reason = "shared with run.rs")]
mod processes;
#[path = "common/run.rs"]
#[expect(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/test_directory.rs"]
mod test_directory;

use imagenet::write_datasets;
use processes::kill;
use run::{Run, manifest};

/// A training of a wide residual network on the images of [`write_datasets`], changed by `change`.
fn wide_resnet(change: Value) -> Value {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["model"]["architecture"] = "wide-resnet-10-1".into();
    training["data"]["validation"]["count"] = 20.into();
    training["schedule"] = json!({"epochs": 1, "batchSize": 20});
    let Value::Object(change) = change else { panic!("an object") };
    training.as_object_mut().unwrap().extend(change);
    manifest
}

/// A tensor of the weights after the last epoch.
fn last_tensor(run: &Run, name: &str) -> Tensor {
    let (tensors, _) = state_dict::read(&run.file("last.safetensors")).unwrap();
    tensors.into_iter().find(|(other, _)| other == name).unwrap().1
}

fn finish(run: &Run, data: &Path, workers: u32) {
    let output = run.command_with(data, workers).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The first BatchNorm sees the same values in any world, as no other normalizes them before. Its running mean over the whole
/// batch is the mean over the ranks' shards.
#[test]
fn ranks_average_their_batch_norm_statistics() {
    let data = tempfile::tempdir().unwrap();
    write_datasets(data.path());
    // Weights that hardly change, and hardly an attack: the images of an epoch determine the statistics.
    let manifest = wide_resnet(json!({
        "threatModel": {"epsilon": "0.00001"},
        "optimizer": {"sgd": {"learningRate": 0.000_000_1}}
    }));
    let means = [1, 2].map(|workers| {
        let run = Run::new(&manifest);
        finish(&run, &data.path().join("folder"), workers);
        last_tensor(&run, "block1.layer.0.bn1.running_mean")
    });
    let difference = (&means[0] - &means[1]).abs().max().double_value(&[]);
    let size = means[0].abs().max().double_value(&[]);
    assert!(size > 0.01 && difference < 1e-4 * size, "{difference} of {size}");
}

/// A perturbation of the weights that stayed would be a hundredth of them after every step.
#[test]
fn weight_perturbation_is_undone_after_every_step() {
    let data = tempfile::tempdir().unwrap();
    write_datasets(data.path());
    let weights = [json!({}), json!({"weightPerturbation": {"gamma": 0.01}})].map(|perturbation| {
        let mut change = json!({"optimizer": {"sgd": {"learningRate": 0.000_000_1}}});
        change.as_object_mut().unwrap().extend(perturbation.as_object().unwrap().clone());
        let run = Run::new(&wide_resnet(change));
        finish(&run, &data.path().join("folder"), 2);
        last_tensor(&run, "conv1.weight")
    });
    let difference = (&weights[0] - &weights[1]).abs().max().double_value(&[]);
    let size = weights[0].abs().mean(Kind::Float).double_value(&[]);
    assert!(difference < 1e-4 * size, "{difference} of {size}");
}

/// Optimizer moments, averaged weights, statistics of BatchNorm and rounding errors are in a checkpoint: without one of them, the
/// weights differ.
#[test]
fn a_killed_run_resumes_with_all_of_its_state() {
    let data = tempfile::tempdir().unwrap();
    write_datasets(data.path());
    let data = data.path().join("folder");
    let manifest = wide_resnet(json!({
        "optimizer": {"lamb": {"learningRate": 0.01}},
        "averaging": {"ema": {"decay": 0.9}},
        "communication": {"compression": {"int8": {"errorFeedback": true}}},
        "schedule": {"epochs": 4, "batchSize": 20}
    }));
    let [uninterrupted, killed] = [(); 2].map(|()| Run::new(&manifest));
    finish(&uninterrupted, &data, 2);
    let mut agent = killed.command_with(&data, 2).spawn().unwrap();
    killed.wait_for("checkpoint-0002.json");
    kill(agent.id());
    agent.wait().unwrap();
    let first_epoch = killed.json("history.json")["epochs"][0].clone();
    finish(&killed, &data, 2);
    let ended_at = |epoch: &Value| epoch["endedAt"].as_str().unwrap().to_owned();
    let resumed = killed.json("history.json")["epochs"][0].clone();
    assert_eq!(ended_at(&resumed), ended_at(&first_epoch), "the first epoch is not trained again");
    for file in ["best.safetensors", "last.safetensors"] {
        let hash = |run: &Run| hex::encode(Sha256::digest(fs::read(run.file(file)).unwrap()));
        assert_eq!(hash(&killed), hash(&uninterrupted), "{file}");
    }
}

/// The checkpoints within an epoch, in rising order.
fn checkpoints_within_epochs(run: &Run) -> Vec<String> {
    let entries = fs::read_dir(run.file("")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    // The tensors have a third dash.
    let is_within = |name: &String| name.starts_with("checkpoint-") && name.matches('-').count() == 2;
    let is_manifest = |name: &String| Path::new(name).extension().is_some_and(|end| end == "json");
    let mut names: Vec<String> = names.filter(is_within).filter(is_manifest).collect();
    names.sort();
    names
}

/// Within an epoch the ranks have different statistics, and PGD uses them: they are in the checkpoint too. Writing it changes
/// nothing.
#[test]
fn a_run_that_is_killed_within_an_epoch_goes_on_at_its_step() {
    assert_killed_within_epoch_is_exact(&json!({}));
}

/// The ranks have different rounding errors.
#[test]
fn a_run_with_error_feedback_that_is_killed_within_an_epoch_goes_on_at_its_step() {
    assert_killed_within_epoch_is_exact(&json!({"compression": {"int8": {"errorFeedback": true}}}));
}

/// A run that is killed within an epoch and resumes has the weights, losses and images of one that was not interrupted.
fn assert_killed_within_epoch_is_exact(communication: &Value) {
    let data = tempfile::tempdir().unwrap();
    write_datasets(data.path());
    let data = data.path().join("folder");
    let manifest = |checkpoint: Value| {
        wide_resnet(json!({
            "attack": {"pgd": {"steps": 40}},
            "optimizer": {"lamb": {"learningRate": 0.01}},
            "averaging": {"ema": {"decay": 0.9}},
            "weightPerturbation": {},
            "communication": communication,
            "schedule": {"epochs": 2, "batchSize": 4},
            "checkpoint": checkpoint
        }))
    };
    let uninterrupted = Run::new(&manifest(json!({})));
    finish(&uninterrupted, &data, 2);
    let killed = Run::new(&manifest(json!({"everySeconds": 1})));
    let mut agent = killed.command_with(&data, 2).spawn().unwrap();
    let started = Instant::now();
    while checkpoints_within_epochs(&killed).is_empty() {
        assert!(started.elapsed() < Duration::from_mins(5), "no checkpoint within an epoch after 5 minutes");
        thread::sleep(Duration::from_millis(20));
    }
    // The next one follows a second later.
    let checkpoint = killed.json(checkpoints_within_epochs(&killed).last().unwrap());
    assert_eq!(checkpoint["partialEpoch"]["sentSteps"], checkpoint["epochStep"], "{checkpoint}");
    kill(agent.id());
    agent.wait().unwrap();
    let output = killed.command_with(&data, 2).env("NO_COLOR", "1").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let step = log.split_once("step_of_epoch=").unwrap().1.split(' ').next().unwrap();
    assert!(step.parse::<u64>().unwrap() > 0, "{log}");
    for file in ["best.safetensors", "last.safetensors"] {
        let hash = |run: &Run| hex::encode(Sha256::digest(fs::read(run.file(file)).unwrap()));
        assert_eq!(hash(&killed), hash(&uninterrupted), "{file}");
    }
    let epochs = |run: &Run| run.json("history.json")["epochs"].as_array().unwrap().clone();
    let loss = |run: &Run| epochs(run).iter().map(|epoch| epoch["loss"].clone()).collect::<Vec<_>>();
    assert_eq!(loss(&killed), loss(&uninterrupted), "the loss is that of all steps");
    let exact = json!({"images": 100, "distinctImages": 100, "missingImages": 0, "repeatedImages": 0});
    for epoch in epochs(&killed) {
        assert_eq!(epoch["samples"], exact, "images of steps before and after the kill count once");
    }
}
