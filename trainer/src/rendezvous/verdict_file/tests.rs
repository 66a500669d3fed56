use datjob_api::report::FailureReason;

use super::*;

fn failure(message: &str) -> Failure {
    Failure::of_rank(FailureReason::Numerical, 1, message)
}

fn file(directory: &Path, attempt: u32) -> VerdictFile {
    VerdictFile::new(directory, "uid", attempt, Some("hash".to_owned()))
}

/// Results as a worker writes them, as far as they are read.
fn write_results(directory: &Path, training_hash: &str) {
    let count = serde_json::json!({"correct": 1, "total": 2});
    let results = serde_json::json!({
        "bestEpoch": 1, "clean": count, "attacks": [], "worstCase": count, "weights": "uid/best.safetensors",
        "sha256": "00", "seed": 0, "trainingHash": training_hash, "trainerVersion": "0", "libtorchVersion": "0",
        "worldSize": 1
    });
    let ending = serde_json::json!({"jobUid": "uid", "results": results});
    std::fs::write(directory.join(results::FILE), serde_json::to_vec(&ending).unwrap()).unwrap();
}

#[test]
fn the_first_failure_of_an_attempt_counts() {
    let directory = tempfile::tempdir().unwrap();
    let verdict = file(directory.path(), 1);
    assert_eq!(verdict.read().unwrap(), None);
    let first = Recorded::Failure(failure("loss is NaN"));
    assert_eq!(verdict.record(&failure("loss is NaN")).unwrap(), first);
    assert_eq!(verdict.record(&failure("another")).unwrap(), first);
    assert_eq!(file(directory.path(), 1).read().unwrap(), Some(failure("loss is NaN")));
}

#[test]
fn the_failure_of_another_attempt_or_job_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), 1).record(&failure("first")).unwrap();
    let second = file(directory.path(), 2);
    assert_eq!(second.read().unwrap(), None);
    assert_eq!(second.record(&failure("second")).unwrap(), Recorded::Failure(failure("second")));
    assert_eq!(file(directory.path(), 1).read().unwrap(), Some(failure("first")));
    let other_job = VerdictFile::new(directory.path(), "other", 1, None);
    assert_eq!(other_job.read().unwrap(), None);
    // A file under the name of another attempt.
    let third = file(directory.path(), 3);
    std::fs::copy(second.path(), third.path()).unwrap();
    assert_eq!(third.read().unwrap(), None);
}

#[test]
fn valid_results_win_over_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let verdict = file(directory.path(), 1);
    write_results(directory.path(), "hash of another spec");
    verdict.record(&failure("loss is NaN")).unwrap();
    assert_eq!(verdict.read().unwrap(), Some(failure("loss is NaN")));
    write_results(directory.path(), "hash");
    assert_eq!(verdict.read().unwrap(), None);
    assert_eq!(verdict.record(&failure("too late")).unwrap(), Recorded::ResultsExist);
    assert_eq!(file(directory.path(), 2).record(&failure("x")).unwrap(), Recorded::ResultsExist);
    assert!(!file(directory.path(), 2).path().exists());
}

#[test]
fn an_invalid_file_is_ignored_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let verdict = file(directory.path(), 1);
    std::fs::write(verdict.path(), "{").unwrap();
    assert_eq!(verdict.read().unwrap(), None);
    assert_eq!(verdict.record(&failure("new")).unwrap(), Recorded::Failure(failure("new")));
    assert_eq!(verdict.read().unwrap(), Some(failure("new")));
}

#[test]
fn a_discarded_failure_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let verdict = file(directory.path(), 1);
    verdict.discard().unwrap();
    verdict.record(&failure("missing file")).unwrap();
    verdict.discard().unwrap();
    assert_eq!(verdict.read().unwrap(), None);
}
