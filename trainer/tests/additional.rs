//! Images beside the data set: generated, labelled by a teacher, without labels.

use std::{fs, path::Path};

use serde_json::{Value, json};

#[path = "common/folder.rs"]
mod folder;
#[path = "common/npz.rs"]
mod npz;
#[path = "common/pictures.rs"]
mod pictures;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "common/squares.rs"]
mod squares;

use run::{Run, manifest_of_squares};

const IMAGES: usize = 3000;
const PIXELS: usize = 28 * 28;

/// The first test squares as an archive, with their labels or without.
fn archive(path: &Path, labelled: bool) {
    let images = fs::read(squares::squares().join("t10k-images-idx3-ubyte")).unwrap();
    let labels = fs::read(squares::squares().join("t10k-labels-idx1-ubyte")).unwrap();
    npz::write(path, &images[16..][..IMAGES * PIXELS], labelled.then_some(&labels[8..][..IMAGES]));
}

fn with_images(labels: &Value) -> Value {
    let mut manifest = manifest_of_squares();
    let training = &mut manifest["spec"]["training"];
    let source = json!({"volume": {"persistentVolumeClaim": {"claimName": "unused"}, "path": "images.npz"}});
    training["data"]["additional"] = json!({"source": source, "labels": labels, "perBatch": 0.5});
    manifest
}

/// Runs it with files; the hash of its weights and the number of its steps, or why it failed.
fn run(manifest: &Value, files: &[(&str, &Path)]) -> Result<(String, u64), String> {
    let run = Run::new(manifest);
    let mut command = run.command(squares::squares());
    for (option, path) in files {
        command.arg(option).arg(path);
    }
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let card = run.json("model_card.json");
    assert_eq!(card["additional_data"], true, "{card}");
    let steps = run.json("history.json")["epochs"][0]["step"].as_u64().unwrap();
    Ok((run.results()["sha256"].as_str().unwrap().to_owned(), steps))
}

#[test]
fn generated_images_fill_their_share_and_a_teacher_can_label_them() {
    let folder = tempfile::tempdir().unwrap();
    let (labelled, unlabelled) = (folder.path().join("labelled.npz"), folder.path().join("unlabelled.npz"));
    archive(&labelled, true);
    archive(&unlabelled, false);

    let given = with_images(&json!({"given": {}}));
    let expected = run(&given, &[("--additional-images", &labelled)]).unwrap();
    // 59,800 images of the data set, half of a batch of 1,024 at a time.
    assert_eq!(expected.1, 117);
    let none = run(&given, &[]).unwrap_err();
    assert!(
        none.contains("data.additional.source: volumes are not available")
            && none.contains("--additional-images"),
        "{none}"
    );
    let without = run(&given, &[("--additional-images", &unlabelled)]).unwrap_err();
    assert!(without.contains("has no labels; set data.additional.labels.teacher"), "{without}");

    // A teacher that knows every square gives the same labels, and so the same run.
    let mut manifest = manifest_of_squares();
    let training = &mut manifest["spec"]["training"];
    training["threatModel"]["epsilon"] = "0.001".into();
    training["schedule"] = json!({"epochs": 1, "batchSize": 256});
    let teacher = Run::new(&manifest);
    teacher.finish_on(squares::squares());
    assert_eq!(
        teacher.results()["clean"]["correct"],
        10_000,
        "the teacher must classify every test image correctly"
    );
    let source = json!({"volume": {"persistentVolumeClaim": {"claimName": "unused"}, "path": "teacher.pt"}});
    let labels = json!({"teacher": {"model": {"architecture": "small-cnn"}, "weights": source}});
    let taught = with_images(&labels);
    let weights = teacher.file("best.safetensors");
    let files: [(&str, &Path); 2] = [("--additional-images", &unlabelled), ("--teacher-weights", &weights)];
    assert_eq!(run(&taught, &files).unwrap(), expected);

    // TRADES learns from images that nobody labels.
    let mut unsupervised = with_images(&json!({"none": {}}));
    let training = &mut unsupervised["spec"]["training"];
    training["objective"] = json!({"trades": {}});
    training["attack"] = json!({"pgd": {"steps": 1}});
    let (weights, steps) = run(&unsupervised, &[("--additional-images", &unlabelled)]).unwrap();
    assert!(steps == 117 && weights != expected.0);
}
