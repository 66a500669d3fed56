use std::fs;

use datjob_api::report::{AttackCount, Count};
use tch::{Device, Kind, Tensor};

use super::*;

/// Saves a checkpoint.
fn save(directory: &Directory, epoch: u32, tensors: &StateDict, best: Option<&Best>) {
    save_at(directory, Steps { epoch, step: 0 }, tensors, best);
}

pub(super) fn save_at(directory: &Directory, at: Steps, tensors: &StateDict, best: Option<&Best>) {
    let saved = directory.save_tensors(at, tensors).unwrap();
    let position = Position {
        at,
        step: u64::from(at.epoch) * 10 + at.step,
        optimizer_begin: 0,
        step_scale: 1.0,
        validation_seed: 0,
        validation_pending: false,
        partial_epoch: (at.step > 0).then(|| PartialEpoch { loss: 0.1, ..PartialEpoch::default() }),
    };
    directory.save_manifest(&position, &saved, best, None).unwrap();
}

/// The newest checkpoint, which is whole.
fn newest(directory: &Directory) -> (Manifest, StateDict) {
    let Resumed { checkpoint, warnings } = directory.resume().unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    checkpoint.unwrap()
}

/// The file of a checkpoint's tensors.
fn tensors_path(directory: &Directory, epoch: u32) -> PathBuf {
    let manifest = directory.manifest(Steps { epoch, step: 0 }).unwrap();
    directory.path.join(manifest.file.unwrap())
}

pub(super) fn tensors(value: f64) -> StateDict {
    vec![
        ("model.conv1.weight".into(), Tensor::full([2, 3, 4, 4], value, (Kind::Float, Device::Cpu))),
        ("model.bn1.num_batches_tracked".into(), Tensor::from(7_i64)),
        ("optimizer.conv1.weight".into(), Tensor::arange(24, (Kind::Double, Device::Cpu)).view([2, 3, 4])),
    ]
}

pub(super) fn directory(hash: &str) -> (tempfile::TempDir, Directory) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = Directory::new(temporary.path(), hash.into(), "data".into(), None);
    (temporary, directory)
}

pub(super) fn best(epoch: u32, file: String, sha256: String) -> Best {
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
    assert!(directory.resume().unwrap().checkpoint.is_none());
    save(&directory, 1, &tensors(1.0), None);
    save_at(&directory, Steps { epoch: 2, step: 7 }, &tensors(2.0), None);
    save(&directory, 2, &tensors(3.0), None);
    let (manifest, loaded) = newest(&directory);
    assert_eq!((manifest.epoch, manifest.epoch_step, manifest.step), (2, 7, 27));
    assert_eq!(manifest.partial_epoch.unwrap().loss.to_bits(), 0.1_f64.to_bits());
    let mut expected = tensors(2.0);
    expected.sort_by(|(a, _), (b, _)| a.cmp(b));
    for ((name, loaded), (expected_name, saved)) in loaded.iter().zip(&expected) {
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
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used() {
    let (temporary, directory) = directory("hash");
    for epoch in 1..=4 {
        save(&directory, epoch, &tensors(f64::from(epoch)), None);
    }
    // The last byte of 4 is another one, the tensors of 3 are missing, and the manifest of 2 was cut off.
    let damaged = tensors_path(&directory, 4);
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    fs::remove_file(tensors_path(&directory, 3)).unwrap();
    fs::write(temporary.path().join("checkpoint-0002.json"), "{").unwrap();
    let Resumed { checkpoint, warnings } = directory.resume().unwrap();
    assert_eq!(checkpoint.unwrap().0.epoch, 1);
    let begins = ["is corrupt: expected SHA-256 ", "is missing", "checkpoint-0002.json is corrupt: EOF"];
    for (warning, begin) in warnings.iter().zip(begins) {
        assert!(warning.contains(begin), "{warning}");
        assert!(warning.ends_with("; the training resumes from an earlier checkpoint"), "{warning}");
    }
    assert_eq!(warnings.len(), 3);
    assert!(temporary.path().join("checkpoint-0004.json.damaged").exists());
    assert!(fs::exists(format!("{}.damaged", damaged.display())).unwrap());
    assert_eq!(newest(&directory).0.epoch, 1, "those that were set aside are not met again");
    fs::remove_file(tensors_path(&directory, 1)).unwrap();
    let Resumed { checkpoint, warnings } = directory.resume().unwrap();
    assert!(checkpoint.is_none());
    assert!(warnings[0].ends_with("; the training starts again"), "{warnings:?}");
}

#[test]
fn a_manifest_of_a_newer_release_is_not_set_aside() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1, &tensors(1.0), None);
    let path = temporary.path().join("checkpoint-0001.json");
    let text = fs::read_to_string(&path).unwrap().replacen('{', "{\"aFieldOfTheFuture\": 1,", 1);
    fs::write(&path, text).unwrap();
    let error = directory.resume().unwrap_err().to_string();
    assert!(error.contains("checkpoint-0001.json is invalid: unknown field `aFieldOfTheFuture`"), "{error}");
    assert!(path.exists());
}

#[test]
fn a_manifest_that_names_a_file_elsewhere_is_rejected() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1, &tensors(1.0), None);
    let path = temporary.path().join("checkpoint-0001.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["file"] = "../other/checkpoint-0001.safetensors".into();
    fs::write(&path, manifest.to_string()).unwrap();
    let error = directory.resume().unwrap_err().to_string();
    assert!(error.contains("expected the name of a file in the same directory"), "{error}");
}

#[test]
fn best_weights_that_are_damaged_are_selected_anew() {
    let (temporary, directory) = directory("hash");
    let (file, sha256) = directory.save_best(1, &tensors(1.0), &card()).unwrap();
    save(&directory, 2, &tensors(2.0), Some(&best(1, file.clone(), sha256)));
    assert!(newest(&directory).0.best.is_some());
    fs::write(temporary.path().join(file), "").unwrap();
    let Resumed { checkpoint, warnings } = directory.resume().unwrap();
    let manifest = checkpoint.unwrap().0;
    assert_eq!((manifest.epoch, manifest.best, manifest.validation_pending), (2, None, true));
    assert!(
        warnings[0].ends_with("these best weights are lost, and the next validation selects new ones"),
        "{warnings:?}"
    );
}

#[test]
fn a_checkpoint_of_0_1_0_is_read() {
    let (temporary, directory) = directory("hash");
    save(&directory, 3, &tensors(1.0), None);
    let path = tensors_path(&directory, 3);
    fs::rename(path, temporary.path().join("checkpoint-0003.safetensors")).unwrap();
    let path = temporary.path().join("checkpoint-0003.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    for field in ["file", "validationSeed", "validationPending"] {
        assert!(fields.remove(field).is_some());
    }
    assert!(!fields.contains_key("epochStep") && !fields.contains_key("partialEpoch"));
    fs::write(&path, manifest.to_string()).unwrap();
    assert_eq!(newest(&directory).0.at(), Steps { epoch: 3, step: 0 });
    // Its tensors are removed like those of others.
    save(&directory, 4, &tensors(2.0), None);
    directory.clean(1, None).unwrap();
    assert!(!temporary.path().join("checkpoint-0003.safetensors").exists());
    assert_eq!(newest(&directory).0.epoch, 4);
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let (temporary, first) = directory("first");
    save(&first, 1, &tensors(1.0), None);
    let resume =
        |hash: &str, data: &str| Directory::new(temporary.path(), hash.into(), data.into(), None).resume();
    let error = resume("second", "data").unwrap_err().to_string();
    assert!(error.contains("belongs to another training spec"), "{error}");
    let error = resume("first", "other data").unwrap_err().to_string();
    assert!(error.contains("belongs to a training on different images"), "{error}");
    assert!(resume("first", "data").is_ok());

    let with = |additional: Option<&str>| {
        let additional = additional.map(ToOwned::to_owned);
        Directory::new(temporary.path(), "first".into(), "data".into(), additional)
    };
    assert!(with(Some("a")).resume().is_ok(), "a checkpoint of an older trainer has no fingerprint");
    save(&with(Some("a")), 2, &tensors(1.0), None);
    assert!(with(Some("a")).resume().is_ok());
    let error = with(Some("b")).resume().unwrap_err().to_string();
    assert!(error.contains("belongs to a training on different images"), "{error}");
}

#[test]
fn a_checkpoint_without_a_manifest_is_not_there() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1, &tensors(1.0), None);
    save(&directory, 2, &tensors(2.0), None);
    fs::remove_file(temporary.path().join("checkpoint-0002.json")).unwrap();
    assert_eq!(newest(&directory).0.epoch, 1);
}

/// The results of an older trainer, with fields that a newer one may write; with the SHA-256 of the best and the last weights.
pub(super) fn results_document(best: &str, last: &str) -> String {
    let document = r#"{
        "jobUid": "job",
        "results": {
            "bestEpoch": 3, "clean": {"correct": 8, "total": 10},
            "attacks": [{"attack": "pgd-20", "correct": 5, "total": 10}],
            "worstCase": {"correct": 5, "total": 10}, "weights": "job/best.safetensors", "sha256": "BEST",
            "seed": 0, "trainingHash": "hash", "trainerVersion": "0.0.9", "libtorchVersion": "2.11.0", "worldSize": 2
        },
        "last": {"sha256": "LAST"}, "training": {"aFieldOfTheFuture": true}, "device": 7
    }"#;
    document.replace("BEST", best).replace("LAST", last)
}

#[test]
fn results_of_another_release_are_read() {
    let (temporary, _) = directory("hash");
    let document = results_document("abc", "def");
    let without = |field: &str| document.replace(field, "");
    assert_eq!(results::read(temporary.path(), "job", "hash").unwrap(), None);
    for text in [
        document.clone(),
        without(r#""training": {"aFieldOfTheFuture": true}, "#),
        without(r#""last": {"sha256": "def"}, "#),
        document.replace(r#"{"sha256": "def"}"#, "7"),
    ] {
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

pub(super) fn card() -> WeightsCard {
    WeightsCard {
        dataset: datjob_api::training::Dataset::Cifar10,
        training_images: 50_000,
        validation_count: 1000,
        validation_seed: 7,
    }
}

#[test]
fn old_checkpoints_go_and_the_best_weights_stay() {
    let (temporary, directory) = directory("hash");
    let mut current = None;
    for epoch in 1..=5 {
        if epoch == 1 || epoch == 3 {
            let (file, sha256) = directory.save_best(epoch, &tensors(f64::from(epoch)), &card()).unwrap();
            current = Some(best(epoch, file, sha256));
        }
        if epoch == 5 {
            // A training that was interrupted here and did not repeat its bits.
            directory.save_tensors(Steps { epoch, step: 0 }, &tensors(0.0)).unwrap();
        }
        save(&directory, epoch, &tensors(f64::from(epoch)), current.as_ref());
        directory.clean(2, current.as_ref()).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(temporary.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let file = |epoch| tensors_path(&directory, epoch).file_name().unwrap().to_str().unwrap().to_owned();
    let best_file = current.unwrap().file;
    assert!(best_file.starts_with("best-0003-"), "{best_file}");
    let mut expected =
        [best_file, "checkpoint-0004.json".into(), file(4), "checkpoint-0005.json".into(), file(5)];
    expected.sort();
    assert_eq!(names, expected);
    let (manifest, _) = newest(&directory);
    let best_weights = manifest.best.unwrap().file;
    let (_, read) = state_dict::read(&temporary.path().join(best_weights)).unwrap();
    assert_eq!(read, Some(card()), "the weights say which images were held out");
}

#[test]
fn the_newest_checkpoint_within_an_epoch_is_kept_beside_those_between_epochs() {
    let steps = |epoch, step| Steps { epoch, step };
    let positions =
        [steps(0, 5), steps(1, 0), steps(1, 5), steps(2, 0), steps(3, 0), steps(3, 4), steps(3, 8)];
    assert_eq!(kept_positions(&positions, 2), [steps(2, 0), steps(3, 0), steps(3, 8)]);
    assert_eq!(kept_positions(&positions[..5], 2), [steps(2, 0), steps(3, 0)]);
    assert_eq!(kept_positions(&positions[..1], 2), [steps(0, 5)]);
    assert_eq!(kept_positions(&[], 2), []);
}

#[test]
fn what_killed_trainers_left_is_removed() {
    let (temporary, directory) = directory("hash");
    let partial = |name: &str| temporary.path().join(format!("{name}.safetensors.partial"));
    let old = ["checkpoint-0001-000007-aa", "checkpoint-0002", "best-0002-aa"].map(partial);
    let new = ["checkpoint-0003-000007-aa", "best-0003-aa"].map(partial);
    for path in old.iter().chain(&new) {
        fs::write(path, "cut off").unwrap();
    }
    save(&directory, 3, &tensors(3.0), None);
    directory.clean(2, None).unwrap();
    assert!(!old.iter().any(|path| path.exists()));
    assert!(new.iter().all(|path| path.exists()), "they may be being written");
}

/// Its SHA-256 is right, so the file is not damaged.
#[test]
fn tensors_that_cannot_be_decoded_are_not_set_aside() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1, &tensors(1.0), None);
    let bytes = b"no tensors";
    fs::write(tensors_path(&directory, 1), bytes).unwrap();
    let path = temporary.path().join("checkpoint-0001.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["sha256"] = hex::encode(Sha256::digest(bytes)).into();
    fs::write(&path, manifest.to_string()).unwrap();
    assert!(matches!(directory.resume(), Err(CheckpointError::Format { .. })));
    assert!(path.exists());
}

/// Another world that began later may be writing them.
#[test]
fn files_of_later_epochs_stay() {
    let (temporary, directory) = directory("hash");
    let later = directory.save_tensors(Steps { epoch: 2, step: 5 }, &tensors(5.0)).unwrap();
    save(&directory, 2, &tensors(2.0), None);
    directory.clean(2, None).unwrap();
    assert!(temporary.path().join(&later.file).exists());
    save(&directory, 3, &tensors(3.0), None);
    directory.clean(2, None).unwrap();
    assert!(!temporary.path().join(&later.file).exists(), "it has no manifest");
}
