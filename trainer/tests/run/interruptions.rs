//! Runs that are killed, or go back to an earlier checkpoint: what they resume with.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    assert_outputs_complete, data, outcome,
    processes::{is_worker, kill, worker_pids},
    run::{Run, manifest},
    uninterrupted_outcome,
};

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
    let text = run.finish();
    assert!(text.contains("95 % interval") && text.contains("so nothing was trained"), "{text}");
    assert_eq!(fs::metadata(run.file("best.safetensors")).unwrap().modified().unwrap(), weights);
}

/// The units that an evaluation has kept below a folder.
fn kept_units(folder: &Path) -> usize {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
    files.map(|file| fs::read_to_string(file.path()).unwrap_or_default().lines().count()).sum()
}

fn wait_for_units(folder: &Path, count: usize) {
    let started = Instant::now();
    while kept_units(folder) < count {
        assert!(
            started.elapsed() < Duration::from_mins(5),
            "{count} units are not kept in {}",
            folder.display()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// The evaluation on the test set takes hours for large networks.
#[test]
fn a_killed_worker_costs_only_the_running_units_of_the_final_evaluation() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    let evaluation = &mut manifest["spec"]["training"]["evaluation"];
    evaluation["final"] = json!([{"pgd": {"steps": 10}}, {"apgdCe": {"steps": 20}}]);
    evaluation["sweep"] = json!({"epsilon": ["0.05", "0.1"], "steps": [200]});
    let (undisturbed, run) = (Run::new(&manifest), Run::new(&manifest));
    undisturbed.finish();
    let log = run.directory.path().join("log");
    let stderr = fs::File::create(&log).unwrap();
    let mut command = run.command(data());
    command.env("NO_COLOR", "1").stdout(Stdio::null()).stderr(stderr);
    let mut agent = command.spawn().unwrap();
    // All images have two units of the final attacks; the others are of the sweep.
    wait_for_units(&run.file("evaluation"), 9);
    kill(worker_pids(&agent)[1]);
    assert!(agent.wait().unwrap().success());
    let log = fs::read_to_string(log).unwrap();
    let used = |line: &str| line.split_once("used=")?.1.split(' ').next()?.parse::<usize>().ok();
    let lines = log.lines().filter(|line| line.contains("Continued an interrupted evaluation."));
    let used: Vec<usize> = lines.filter_map(used).collect();
    assert!(used.len() == 2 && used.iter().sum::<usize>() >= 9, "{log}");
    assert_eq!(run.results(), undisturbed.results());
    assert!(!run.file("evaluation").exists());
}

#[test]
fn an_interrupted_evaluate_command_goes_on_where_it_was() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 1.into();
    let run = Run::new(&manifest);
    run.finish();
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dat-trainer"));
        let job = run.directory.path().join("job.yaml");
        command
            .arg("evaluate")
            .arg(run.file("best.safetensors"))
            .arg("--manifest")
            .arg(job)
            .arg("--data")
            .arg(data());
        command.args(["--attack", "pgd-300"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let expected = command().output().unwrap();
    let table = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| !line.starts_with("evaluation took")).collect::<Vec<_>>().join("\n")
    };
    assert!(table(&expected).contains("pgd-300"), "{expected:?}");
    let state = run.file("best.safetensors.evaluation");
    let mut interrupted = command().spawn().unwrap();
    wait_for_units(&state, 1);
    kill(interrupted.id());
    assert!(!interrupted.wait().unwrap().success());
    let resumed = command().output().unwrap();
    let log = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(log.contains("results of the interrupted evaluation") && log.contains("used "), "{log}");
    assert_eq!(table(&resumed), table(&expected));
    assert!(!state.exists());
}

/// Sends a signal to the process.
fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until the first epoch is validated and steps of the second one were made.
fn wait_for_second_epoch(run: &Run, log: &Path) {
    run.wait_for("checkpoint-0001.json");
    let started = Instant::now();
    while !fs::read_to_string(log).unwrap_or_default().contains("validation ") {
        assert!(started.elapsed() < Duration::from_mins(1), "no validation after a minute");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(300));
}

#[test]
fn an_interrupted_run_writes_a_checkpoint_and_goes_on_at_its_step() {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["attack"] = json!({"pgd": {"steps": 3}});
    training["optimizer"] = json!({"sgd": {"learningRate": 0.01}});
    training["schedule"] = json!({"epochs": 2, "batchSize": 8});
    let uninterrupted = Run::new(&manifest);
    uninterrupted.finish();
    for (signal, status) in [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)] {
        let run = Run::new(&manifest);
        let log = run.directory.path().join("stdout");
        let mut command = run.command(data());
        command.env("NO_COLOR", "1").stdout(fs::File::create(&log).unwrap()).stderr(Stdio::piped());
        let agent = command.spawn().unwrap();
        wait_for_second_epoch(&run, &log);
        // Twice, as `timeout` sends it.
        send(agent.id(), signal);
        send(agent.id(), signal);
        let output = agent.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        let expected =
            "interrupted; run the command again to resume from the checkpoint that was just written";
        assert!(stderr.contains(expected), "{stderr}");
        let output = run.command(data()).env("NO_COLOR", "1").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let step = stderr.split_once("Resumed from a checkpoint. epoch=1 step_of_epoch=").unwrap().1;
        let step: u64 = step.split(' ').next().unwrap().parse().unwrap();
        assert!(step > 0 && output.status.success(), "{stderr}");
        assert_eq!(outcome(&run), outcome(&uninterrupted));
    }
}

/// A worker may die at the moment of the interrupt, for example by the same signal.
#[test]
fn an_interrupt_is_not_lost_when_a_worker_dies() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["optimizer"] = json!({"sgd": {"learningRate": 0.01}});
    manifest["spec"]["training"]["schedule"] = json!({"epochs": 50, "batchSize": 8});
    for delay in [0, 1, 20] {
        let run = Run::new(&manifest);
        let mut agent = run.start();
        run.wait_for("checkpoint-0001.json");
        kill(worker_pids(&agent)[1]);
        thread::sleep(Duration::from_millis(delay));
        send(agent.id(), rustix::process::Signal::INT);
        let started = Instant::now();
        let status = loop {
            if let Some(status) = agent.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > Duration::from_secs(20) {
                kill(agent.id());
                panic!("still runs 20 s after the interrupt");
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(130));
    }
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
    let tensors = fs::read(run.file(left["file"].as_str().unwrap())).unwrap();
    assert_eq!(left["sha256"], hex::encode(Sha256::digest(tensors)));
}
