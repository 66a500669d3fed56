use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::*;
use crate::checkpoint::results::Ending;
use datjob_data::files::FileError;

fn at(epoch: u32, step: u64) -> Steps {
    Steps { epoch, step }
}

fn manifest(at: Steps, best: Option<Best>) -> Manifest {
    Manifest {
        epoch: at.epoch,
        epoch_step: at.step,
        step: 100 * u64::from(at.epoch) + at.step,
        optimizer_begin: 0,
        step_scale: 1.0,
        validation_seed: None,
        validation_pending: false,
        partial_epoch: None,
        training_hash: "hash".into(),
        data: None,
        additional_data: None,
        file: Some(names::tensors(at, "a1b2c3d4e5")),
        sha256: "a1b2c3d4e5".into(),
        best,
        overfitting_reference: None,
    }
}

fn best() -> Best {
    crate::checkpoint::tests::best(1, names::best(1, "b1b2c3d4e5"), "b1b2c3d4e5".into())
}

fn whole(at: Steps, manifest: Manifest) -> FoundCheckpoint {
    let file = names::manifest(at);
    FoundCheckpoint { file, at, manifest: Ok(manifest), tensors_error: None, best_error: None }
}

fn damaged(file: &str) -> CheckpointError {
    CheckpointError::Damaged { path: file.into(), expected: "a".into(), found: "b".into() }
}

fn file(name: impl Into<String>) -> FoundFile {
    FoundFile { name: name.into(), bytes: 7, modified: Some(Timestamp::constant(1_700_000_000, 0)) }
}

fn inventory(checkpoints: Vec<FoundCheckpoint>, files: Vec<FoundFile>) -> Inventory {
    Inventory {
        path: PathBuf::from("/checkpoints/uid"),
        directory: "uid".into(),
        files,
        checkpoints,
        results: Ok(None),
        evaluation: Ok(None),
    }
}

fn ending() -> Ending {
    serde_json::from_str(&crate::checkpoint::tests::results_document("abc", "def")).unwrap()
}

#[test]
fn lists_whole_checkpoints() {
    let pending = Manifest { validation_pending: true, ..manifest(at(2, 0), None) };
    let within = manifest(at(2, 7), Some(best()));
    let found = vec![whole(at(2, 0), pending), whole(at(2, 7), within)];
    let listing = JobListing::from(&inventory(found, vec![file(names::tensors(at(2, 7), "a1b2c3d4e5"))]));
    assert!(listing.is_whole() && listing.other_files.is_empty() && listing.results.is_none());
    let json = serde_json::to_value(&listing).unwrap();
    let expected = json!({
        "directory": "uid",
        "checkpoints": [
            {
                "epoch": 2, "epochStep": 0, "manifest": "checkpoint-0002.json", "state": "whole",
                "step": 200, "validationPending": true, "file": "checkpoint-0002-a1b2c3d4.safetensors",
                "sha256": "a1b2c3d4e5"
            },
            {
                "epoch": 2, "epochStep": 7, "manifest": "checkpoint-0002-000007.json", "state": "whole",
                "step": 207, "validationPending": false, "file": "checkpoint-0002-000007-a1b2c3d4.safetensors",
                "bytes": 7, "modified": "2023-11-14T22:13:20Z", "sha256": "a1b2c3d4e5",
                "best": {
                    "epoch": 1, "clean": {"correct": 2, "total": 2},
                    "robust": {"attack": "pgd-10", "correct": 1, "total": 2}, "averaged": false,
                    "file": "best-0001-b1b2c3d4.safetensors", "sha256": "b1b2c3d4e5", "state": "whole"
                }
            }
        ],
        "otherFiles": [],
        "problems": []
    });
    assert_eq!(json, expected);
}

#[test]
fn lists_what_is_damaged() {
    let found = |epoch, manifest, tensors_error, best_error| FoundCheckpoint {
        file: names::manifest(at(epoch, 0)),
        at: at(epoch, 0),
        manifest,
        tensors_error,
        best_error,
    };
    let with_best = |epoch| Ok(manifest(at(epoch, 0), Some(best())));
    let problem = String::from("EOF");
    let cut = CheckpointError::DamagedManifest { path: "m1".into(), problem: problem.clone() };
    let newer = CheckpointError::Manifest { path: "m2".into(), problem };
    let missing = CheckpointError::Missing { path: "t3".into() };
    let unreadable = FileError::new("read", Path::new("t5"), ErrorKind::PermissionDenied.into());
    let listing = JobListing::from(&inventory(
        vec![
            found(1, Err(cut), None, None),
            found(2, Err(newer), None, None),
            found(3, with_best(3), Some(missing), Some(damaged("b"))),
            found(4, with_best(4), Some(damaged("t4")), Some(damaged("b"))),
            found(5, with_best(5), Some(unreadable.into()), None),
        ],
        Vec::new(),
    ));
    let states: Vec<FileState> = listing.checkpoints.iter().map(|checkpoint| checkpoint.state).collect();
    let expected = [
        FileState::ManifestCorrupt,
        FileState::ManifestInvalid,
        FileState::Missing,
        FileState::Corrupt,
        FileState::Unreadable,
    ];
    assert_eq!(states, expected);
    assert_eq!((listing.checkpoints[0].epoch, &listing.checkpoints[0].description), (1, &None));
    let best_state = |index: usize| {
        let description = listing.checkpoints[index].description.as_ref()?;
        description.best.as_ref().map(|best| best.state)
    };
    assert_eq!([best_state(2), best_state(4)], [Some(FileState::Corrupt), Some(FileState::Whole)]);
    assert!(!listing.is_whole());
    let begins = [
        "checkpoint file m1 is corrupt: EOF",
        "m2 is invalid: EOF",
        "checkpoint file t3 is missing",
        "checkpoint file b is corrupt: expected SHA-256 a, got b",
        "checkpoint file t4 is corrupt",
        "cannot read t5: permission denied",
    ];
    assert_eq!(listing.problems.len(), begins.len(), "{:?}", listing.problems);
    for (problem, begin) in listing.problems.iter().zip(begins) {
        assert!(problem.starts_with(begin), "{problem}");
    }
}

#[test]
fn lists_files_that_belong_to_no_checkpoint() {
    let found = vec![whole(at(3, 0), manifest(at(3, 0), Some(best())))];
    let names = [
        "MODEL_CARD.md",
        "best-0001-b1b2c3d4.safetensors",
        "best-0002-a1b2c3d4.safetensors",
        "best.safetensors",
        "best.safetensors.partial",
        "checkpoint-0002.json.damaged",
        "checkpoint-0003-a1b2c3d4.safetensors",
        "checkpoint-0003-ffffffff.safetensors",
        "checkpoint-0003.json",
        "checkpoint-0004-a1b2c3d4.safetensors.partial",
        "notes.damaged",
        "notes.partial",
    ];
    let listing = JobListing::from(&inventory(found, names.map(file).into()));
    let others: Vec<_> = listing.other_files.iter().map(|other| (other.file.as_str(), other.kind)).collect();
    let expected = [
        ("best-0002-a1b2c3d4.safetensors", OtherKind::BestWeights),
        ("best.safetensors.partial", OtherKind::Partial),
        ("checkpoint-0002.json.damaged", OtherKind::SetAside),
        ("checkpoint-0003-ffffffff.safetensors", OtherKind::Tensors),
        ("checkpoint-0004-a1b2c3d4.safetensors.partial", OtherKind::Partial),
    ];
    assert_eq!(others, expected);
    let problem = "/checkpoints/uid/checkpoint-0002.json.damaged was damaged and is set aside; remove it once you know the \
                   cause";
    assert_eq!(listing.problems, [problem], "the other files are no damage");
}

#[test]
fn tensors_of_0_1_0_belong_to_their_checkpoint() {
    let found = whole(at(3, 0), Manifest { file: None, ..manifest(at(3, 0), None) });
    let listing = JobListing::from(&inventory(vec![found], vec![file("checkpoint-0003.safetensors")]));
    assert!(listing.other_files.is_empty());
    let description = listing.checkpoints[0].description.as_ref().unwrap();
    assert_eq!((description.file.as_str(), description.bytes), ("checkpoint-0003.safetensors", Some(7)));
}

#[test]
fn lists_results() {
    let mut inventory = inventory(Vec::new(), Vec::new());
    inventory.evaluation = Ok(Some(12));
    inventory.results = Ok(Some(FoundResults { ending: ending(), best_error: None, last_error: None }));
    let listing = JobListing::from(&inventory);
    assert!(listing.is_whole());
    assert_eq!(listing.evaluation_results, Some(12));
    let results = listing.results.unwrap();
    assert_eq!(results.recorded.as_ref(), Some(&ending().results));
    assert_eq!((results.best_file, results.last_file), (Some(FileState::Whole), Some(FileState::Whole)));

    let (best_error, last_error) = (Some(damaged(BEST_FILE)), None);
    inventory.results = Ok(Some(FoundResults { ending: ending(), best_error, last_error }));
    let listing = JobListing::from(&inventory);
    assert_eq!(listing.problems, ["checkpoint file best.safetensors is corrupt: expected SHA-256 a, got b"]);
    assert_eq!(listing.results.unwrap().best_file, Some(FileState::Corrupt));

    let (path, problem) = ("results.json".into(), "EOF".into());
    inventory.results = Err(CheckpointError::Manifest { path, problem });
    let error = ErrorKind::NotADirectory.into();
    inventory.evaluation = Err(FileError::new("list", Path::new("evaluation"), error));
    let listing = JobListing::from(&inventory);
    assert_eq!(
        serde_json::to_value(&listing.results).unwrap(),
        json!({}),
        "there are results, unreadable ones"
    );
    assert_eq!((listing.evaluation_results, listing.problems.len()), (None, 2));
    assert_eq!(serde_json::to_value(&listing).unwrap()["evaluationResults"], Value::Null);
}
