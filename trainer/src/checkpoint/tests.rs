use std::fs;

use tch::{Device, Kind, Tensor};

use super::*;

/// Saves a checkpoint.
fn save(directory: &Directory, epoch: u32, tensors: &StateDict, best: Option<&Best>) {
    let saved = directory.save_tensors(epoch, tensors).unwrap();
    let position = Position {
        step: u64::from(epoch) * 10,
        optimizer_begin: 0,
        step_scale: 1.0,
        validation_seed: 0,
        validation_pending: false,
    };
    directory.save_manifest(position, &saved, best, None).unwrap();
}

fn tensors(value: f64) -> StateDict {
    vec![
        ("model.conv1.weight".into(), Tensor::full([2, 3, 4, 4], value, (Kind::Float, Device::Cpu))),
        ("model.bn1.num_batches_tracked".into(), Tensor::from(7_i64)),
        ("optimizer.conv1.weight".into(), Tensor::arange(24, (Kind::Double, Device::Cpu)).view([2, 3, 4])),
    ]
}

fn directory(hash: &str) -> (tempfile::TempDir, Directory) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = Directory::new(temporary.path(), hash.into(), "data".into(), None);
    (temporary, directory)
}

fn best(epoch: u32, file: String, sha256: String) -> Best {
    let robust = AttackCount::new("pgd-10", Count { correct: 1, total: 2 });
    Best {
        epoch,
        clean: Count { correct: 2, total: 2 },
        robust,
        single_step: None,
        averaged: false,
        file,
        sha256,
    }
}

#[test]
fn what_was_saved_comes_back() {
    let (_temporary, directory) = directory("hash");
    assert!(directory.newest().unwrap().is_none());
    save(&directory, 1, &tensors(1.0), None);
    save(&directory, 2, &tensors(2.0), None);
    let manifest = directory.newest().unwrap().unwrap();
    assert_eq!((manifest.epoch, manifest.step), (2, 20));
    let mut expected = tensors(2.0);
    expected.sort_by(|(a, _), (b, _)| a.cmp(b));
    for ((name, loaded), (expected_name, saved)) in directory.load(&manifest).unwrap().iter().zip(&expected) {
        assert_eq!(name, expected_name);
        assert_eq!(loaded, saved);
    }
}

#[test]
fn a_volume_without_room_is_waited_for() {
    let (_temporary, directory) = directory("hash");
    directory.wait_for_room(1).unwrap();
    let error = directory.require_room(u64::MAX).unwrap_err();
    let trouble = storage::trouble(&error).unwrap();
    assert_eq!(trouble.error, "ENOSPC");
    let message = trouble.message;
    assert!(message.contains(" MiB of free space, and the job needs 17592186044416 MiB"), "{message}");
}

#[test]
fn a_damaged_checkpoint_is_refused_with_what_to_do() {
    let (temporary, directory) = directory("hash");
    save(&directory, 3, &tensors(1.0), None);
    let path = temporary.path().join("checkpoint-0003.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let manifest = directory.newest().unwrap().unwrap();
    let error = directory.load(&manifest).unwrap_err().to_string();
    assert!(error.contains("checkpoint-0003.safetensors is corrupt: expected SHA-256 "), "{error}");
    assert!(error.contains("checkpoint-0003.json to resume from the previous checkpoint"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(directory.load(&manifest).unwrap_err().to_string().contains("is missing"));
    fs::write(temporary.path().join("checkpoint-0003.json"), "{").unwrap();
    assert!(directory.newest().unwrap_err().to_string().contains("checkpoint-0003.json is invalid: "));
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let (temporary, first) = directory("first");
    save(&first, 1, &tensors(1.0), None);
    let newest =
        |hash: &str, data: &str| Directory::new(temporary.path(), hash.into(), data.into(), None).newest();
    let error = newest("second", "data").unwrap_err().to_string();
    assert!(error.contains("belongs to another training spec"), "{error}");
    let error = newest("first", "other data").unwrap_err().to_string();
    assert!(error.contains("belongs to a training on different images"), "{error}");
    assert!(newest("first", "data").is_ok());

    let with = |additional: Option<&str>| {
        let additional = additional.map(ToOwned::to_owned);
        Directory::new(temporary.path(), "first".into(), "data".into(), additional)
    };
    assert!(with(Some("a")).newest().is_ok(), "a checkpoint of an older trainer has no fingerprint");
    save(&with(Some("a")), 2, &tensors(1.0), None);
    assert!(with(Some("a")).newest().is_ok());
    let error = with(Some("b")).newest().unwrap_err().to_string();
    assert!(error.contains("belongs to a training on different images"), "{error}");
}

#[test]
fn a_checkpoint_without_a_manifest_is_not_there() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1, &tensors(1.0), None);
    save(&directory, 2, &tensors(2.0), None);
    fs::remove_file(temporary.path().join("checkpoint-0002.json")).unwrap();
    assert_eq!(directory.newest().unwrap().unwrap().epoch, 1);
}

/// What a trainer wrote that knew nothing of what stands beside the results now, and what a newer one may write.
#[test]
fn results_of_another_release_are_read() {
    let (temporary, _) = directory("hash");
    let document = r#"{
        "jobUid": "job",
        "results": {
            "bestEpoch": 3, "clean": {"correct": 8, "total": 10},
            "attacks": [{"attack": "pgd-20", "correct": 5, "total": 10}],
            "worstCase": {"correct": 5, "total": 10}, "weights": "job/best.safetensors", "sha256": "abc",
            "seed": 0, "trainingHash": "hash", "trainerVersion": "0.0.9", "libtorchVersion": "2.11.0", "worldSize": 2
        },
        "training": {"aFieldOfTheFuture": true}, "device": 7
    }"#;
    assert_eq!(results::read(temporary.path(), "job", "hash").unwrap(), None);
    for text in [document.to_owned(), document.replace(r#""training": {"aFieldOfTheFuture": true}, "#, "")] {
        fs::write(temporary.path().join(results::FILE), text).unwrap();
        let read = results::read(temporary.path(), "job", "hash").unwrap().unwrap();
        assert_eq!((read.best_epoch, read.clean.correct), (3, 8));
        assert!(results::not_written(temporary.path()).unwrap().is_empty());
    }
    let other = results::read(temporary.path(), "other", "hash").unwrap_err().to_string();
    assert!(other.contains("it belongs to job job"), "{other}");
    let other = results::read(temporary.path(), "job", "other").unwrap_err().to_string();
    assert!(other.contains("belongs to another training spec"), "{other}");
}

#[test]
fn old_checkpoints_go_and_the_best_weights_stay() {
    let (temporary, directory) = directory("hash");
    let card = WeightsCard {
        dataset: datjob_api::training::Dataset::Cifar10,
        training_images: 50_000,
        validation_count: 1000,
        validation_seed: 7,
    };
    let mut current = None;
    for epoch in 1..=5 {
        if epoch == 1 || epoch == 3 {
            let (file, sha256) = directory.save_best(epoch, &tensors(f64::from(epoch)), &card).unwrap();
            current = Some(best(epoch, file, sha256));
        }
        save(&directory, epoch, &tensors(f64::from(epoch)), current.as_ref());
        directory.clean(2, current.as_ref()).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(temporary.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "best-0003.safetensors",
            "checkpoint-0004.json",
            "checkpoint-0004.safetensors",
            "checkpoint-0005.json",
            "checkpoint-0005.safetensors"
        ]
    );
    let manifest = directory.newest().unwrap().unwrap();
    directory.load_best(&manifest.best.unwrap(), manifest.epoch).unwrap();
    let (_, read) = state_dict::read(&temporary.path().join("best-0003.safetensors")).unwrap();
    assert_eq!(read, Some(card), "the weights say which images were held out");
}
