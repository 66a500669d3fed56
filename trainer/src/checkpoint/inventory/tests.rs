use super::*;
use crate::checkpoint::{
    Directory,
    tests::{best, card, directory, save_at, tensors},
};

const EPOCH_1: Steps = Steps { epoch: 1, step: 0 };

fn read(temporary: &tempfile::TempDir) -> Inventory {
    Inventory::read(temporary.path()).unwrap()
}

fn save(directory: &Directory, epoch: u32) {
    save_at(directory, Steps { epoch, step: 0 }, &tensors(f64::from(epoch)), None);
}

/// The files of tensors, in ascending order of their positions.
fn tensors_files(temporary: &tempfile::TempDir) -> Vec<PathBuf> {
    let names = read(temporary).files.into_iter().map(|file| file.name);
    let names = names.filter(|name| names::parse_tensors(name).is_some());
    names.map(|name| temporary.path().join(name)).collect()
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, &bytes).unwrap();
}

/// Names and contents of the files below a directory.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort_unstable();
    files
}

#[test]
fn verifies_tensors_and_best_weights() {
    let (temporary, directory) = directory("hash");
    let (file, sha256) = directory.save_best(1, &tensors(0.0), &card()).unwrap();
    let best = best(1, file, sha256);
    save_at(&directory, EPOCH_1, &tensors(1.0), Some(&best));
    save_at(&directory, Steps { epoch: 1, step: 7 }, &tensors(2.0), Some(&best));
    let inventory = read(&temporary);
    assert!(inventory.checkpoints.iter().all(FoundCheckpoint::is_whole), "{inventory:?}");
    let positions: Vec<Steps> = inventory.checkpoints.iter().map(|found| found.at).collect();
    assert_eq!(positions, [EPOCH_1, Steps { epoch: 1, step: 7 }]);
    assert_eq!(inventory.checkpoints[1].file, "checkpoint-0001-000007.json");
    assert_eq!(inventory.files.len(), 5);
    assert!(inventory.files.iter().all(|file| file.bytes > 0 && file.modified.is_some()));
    assert!(inventory.results.unwrap().is_none() && inventory.evaluation.unwrap().is_none());
    assert_eq!(inventory.directory, temporary.path().file_name().unwrap().to_str().unwrap());

    flip_last_byte(&temporary.path().join(best.file));
    let inventory = read(&temporary);
    for found in &inventory.checkpoints {
        assert!(found.manifest.is_ok() && found.tensors_error.is_none());
        assert!(matches!(found.best_error, Some(CheckpointError::Damaged { .. })), "{found:?}");
    }
}

#[test]
fn finds_what_is_damaged_and_changes_nothing() {
    let (temporary, directory) = directory("hash");
    for epoch in 1..=5 {
        save(&directory, epoch);
    }
    let files = tensors_files(&temporary);
    flip_last_byte(&files[4]);
    fs::remove_file(&files[3]).unwrap();
    fs::write(temporary.path().join("checkpoint-0003.json"), "{").unwrap();
    let newer = fs::read_to_string(temporary.path().join("checkpoint-0002.json")).unwrap();
    let newer = newer.replacen('{', "{\"aFieldOfTheFuture\": 1,", 1);
    fs::write(temporary.path().join("checkpoint-0002.json"), newer).unwrap();
    let before = contents(temporary.path());

    let inventory = read(&temporary);
    let [whole, newer, cut, missing, corrupt] = &inventory.checkpoints[..] else { panic!("{inventory:?}") };
    assert!(whole.is_whole());
    assert!(matches!(newer.manifest, Err(CheckpointError::Manifest { .. })), "{newer:?}");
    assert!(matches!(cut.manifest, Err(CheckpointError::DamagedManifest { .. })), "{cut:?}");
    assert_eq!((cut.at, cut.file.as_str()), (Steps { epoch: 3, step: 0 }, "checkpoint-0003.json"));
    let (missing, corrupt) = (missing.tensors_error.as_ref(), corrupt.tensors_error.as_ref());
    assert!(matches!(missing, Some(CheckpointError::Missing { path }) if *path == files[3]), "{missing:?}");
    assert!(matches!(corrupt, Some(CheckpointError::Damaged { path, .. }) if *path == files[4]));
    assert_eq!(contents(temporary.path()), before);
}

/// A training removes older checkpoints.
#[test]
fn a_checkpoint_that_is_removed_meanwhile_is_not_damaged() {
    let temporary = tempfile::tempdir().unwrap();
    let mut reader = Reader { directory: temporary.path(), verified: BTreeSet::new() };
    assert!(reader.checkpoint("checkpoint-0001.json", EPOCH_1).is_none());
}

#[test]
fn reads_checkpoints_of_0_1_0() {
    let (temporary, directory) = directory("hash");
    save(&directory, 3);
    let file = temporary.path().join("checkpoint-0003.safetensors");
    fs::rename(&tensors_files(&temporary)[0], &file).unwrap();
    let path = temporary.path().join("checkpoint-0003.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for field in ["file", "validationSeed", "validationPending"] {
        assert!(manifest.as_object_mut().unwrap().remove(field).is_some());
    }
    fs::write(&path, manifest.to_string()).unwrap();
    assert!(read(&temporary).checkpoints[0].is_whole());
    flip_last_byte(&file);
    assert!(matches!(read(&temporary).checkpoints[0].tensors_error, Some(CheckpointError::Damaged { .. })));
}

/// A volume may be written by others.
#[test]
fn does_not_follow_a_manifest_out_of_the_directory() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1);
    let path = temporary.path().join("checkpoint-0001.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for file in ["../secret", "/etc/passwd", "..", "logs/a", ""] {
        let mut manifest = manifest.clone();
        manifest["file"] = file.into();
        fs::write(&path, manifest.to_string()).unwrap();
        let error = read(&temporary).checkpoints.remove(0).manifest.unwrap_err().to_string();
        let expected = format!("expected the name of a file in the same directory, got {file:?}");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_directory_in_place_of_tensors_is_an_error() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1);
    let file = tensors_files(&temporary).remove(0);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = read(&temporary).checkpoints.remove(0).tensors_error.unwrap();
    assert!(!error.is_damage());
    assert_eq!(error.to_string(), format!("cannot read {}: not a regular file", file.display()));
}

#[test]
fn verifies_the_weights_of_the_results() {
    let (temporary, directory) = directory("hash");
    let (_, best) = directory.save_result(&tensors(1.0), &card()).unwrap();
    let (_, last) = directory.save_last(&tensors(2.0), &card()).unwrap();
    let path = temporary.path().join(results::FILE);
    fs::write(&path, crate::checkpoint::tests::results_document(&best, &last)).unwrap();
    let found = read(&temporary).results.unwrap().unwrap();
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.ending.last_sha256(), Some(last.as_str()));

    flip_last_byte(&temporary.path().join(LAST_FILE));
    fs::remove_file(temporary.path().join(BEST_FILE)).unwrap();
    let found = read(&temporary).results.unwrap().unwrap();
    assert!(matches!(found.best_error, Some(CheckpointError::Missing { .. })), "{found:?}");
    assert!(matches!(found.last_error, Some(CheckpointError::Damaged { .. })), "{found:?}");

    fs::write(&path, "{").unwrap();
    let error = read(&temporary).results.unwrap_err().to_string();
    assert!(error.contains("results.json is invalid: EOF"), "{error}");
}

#[test]
fn counts_the_results_of_an_evaluation_that_is_not_complete() {
    let (temporary, directory) = directory("hash");
    save(&directory, 1);
    let folder = temporary.path().join("evaluation/0123456789abcdef");
    fs::create_dir_all(&folder).unwrap();
    let line = |batch: u32| {
        let numbers = format!("\"evaluation\":1,\"attack\":0,\"stage\":0,\"run\":0,\"batch\":{batch}");
        format!("{{{numbers},\"images\":\"a\",\"robust\":\"10\"}}\n")
    };
    fs::write(folder.join("1-1.jsonl"), line(0) + &line(1) + "{\"evaluation\":1,").unwrap();
    assert_eq!(read(&temporary).evaluation.unwrap(), Some(2));
}

#[test]
fn finds_the_directories_of_jobs() {
    let volume = tempfile::tempdir().unwrap();
    let find = |path: &Path| job_directories(path).unwrap();
    assert_eq!(find(volume.path()), Vec::<PathBuf>::new());
    let job = |name: &str, file: &str| {
        let path = volume.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join(file), "").unwrap();
        path
    };
    let trained = job("b", "checkpoint-0001.json");
    let expected = [
        job("a", "results.json"),
        trained.clone(),
        job("c", "checkpoint-0001.json.damaged"),
        job("d", "best-0001-a1b2c3d4.safetensors"),
    ];
    job("data", "train-images-idx3-ubyte");
    job("lost+found", "checkpoint-0001.json");
    fs::write(volume.path().join("notes"), "").unwrap();
    assert_eq!(find(volume.path()), expected);
    assert_eq!(find(&trained), [trained]);
}
