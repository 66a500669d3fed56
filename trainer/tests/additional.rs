//! Training with additional images: with labels, labelled by a teacher network, without labels.

use std::{fs, path::Path};

use serde_json::{Value, json};

#[path = "common/npz.rs"]
mod npz;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/synthetic_mnist.rs"]
mod synthetic_mnist;
#[path = "common/test_directory.rs"]
mod test_directory;

use run::{Run, mnist_manifest};
use synthetic_mnist::synthetic_mnist;

const IMAGES: usize = 3000;
const PIXELS: usize = 28 * 28;

/// Writes the first test images as a NumPy archive, with or without labels.
fn write_archive(path: &Path, labelled: bool) {
    let images = fs::read(synthetic_mnist().join("t10k-images-idx3-ubyte")).unwrap();
    let labels = fs::read(synthetic_mnist().join("t10k-labels-idx1-ubyte")).unwrap();
    npz::write(path, &images[16..][..IMAGES * PIXELS], labelled.then_some(&labels[8..][..IMAGES]));
}

fn manifest_with_additional_images(labels: &Value) -> Value {
    let mut manifest = mnist_manifest();
    let training = &mut manifest["spec"]["training"];
    let source = json!({"volume": {"persistentVolumeClaim": {"claimName": "unused"}, "path": "images.npz"}});
    training["data"]["additional"] = json!({"source": source, "labels": labels, "perBatch": 0.5});
    manifest
}

/// Runs a manifest with files. Returns the hash of the weights and the number of steps, or standard error.
fn run(manifest: &Value, files: &[(&str, &Path)]) -> Result<(String, u64), String> {
    let run = Run::new(manifest);
    let mut command = run.command(synthetic_mnist());
    for (option, path) in files {
        command.arg(option).arg(path);
    }
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let card = run.json("model_card.json");
    assert_eq!(card["additional_data"], true, "{card}");
    let epoch = run.json("history.json")["epochs"][0].clone();
    // 59,800 images of the data set, and 117 times 512 additional ones; each of the 3,000 occurs.
    let samples =
        json!({"images": 119_704, "distinctImages": 62_800, "missingImages": 0, "repeatedImages": 0});
    assert_eq!(epoch["samples"], samples);
    let steps = epoch["step"].as_u64().unwrap();
    Ok((run.results()["sha256"].as_str().unwrap().to_owned(), steps))
}

#[test]
fn additional_images_fill_their_share_and_a_teacher_labels_them() {
    let folder = tempfile::tempdir().unwrap();
    let (labelled, unlabelled) = (folder.path().join("labelled.npz"), folder.path().join("unlabelled.npz"));
    write_archive(&labelled, true);
    write_archive(&unlabelled, false);

    let given = manifest_with_additional_images(&json!({"given": {}}));
    let expected = run(&given, &[("--additional-images", &labelled)]).unwrap();
    // An epoch has 59,800 images of the data set, 512 in each batch of 1,024.
    assert_eq!(expected.1, 117);
    let missing = run(&given, &[]).unwrap_err();
    assert!(
        missing.contains("data.additional.source: volumes are not available")
            && missing.contains("--additional-images"),
        "{missing}"
    );
    let without_labels = run(&given, &[("--additional-images", &unlabelled)]).unwrap_err();
    assert!(without_labels.contains("has no labels; set data.additional.labels.teacher"), "{without_labels}");

    // A teacher that classifies every image correctly gives the same labels, and therefore the same run.
    let mut manifest = mnist_manifest();
    let training = &mut manifest["spec"]["training"];
    training["threatModel"]["epsilon"] = "0.001".into();
    training["schedule"] = json!({"epochs": 1, "batchSize": 256});
    let teacher = Run::new(&manifest);
    teacher.finish_on(synthetic_mnist());
    assert_eq!(
        teacher.results()["clean"]["correct"],
        10_000,
        "the teacher must classify every test image correctly"
    );
    let source = json!({"volume": {"persistentVolumeClaim": {"claimName": "unused"}, "path": "teacher.pt"}});
    let labels = json!({"teacher": {"model": {"architecture": "small-cnn"}, "weights": source}});
    let labelled_by_teacher = manifest_with_additional_images(&labels);
    let weights = teacher.file("best.safetensors");
    let files: [(&str, &Path); 2] = [("--additional-images", &unlabelled), ("--teacher-weights", &weights)];
    assert_eq!(run(&labelled_by_teacher, &files).unwrap(), expected);

    // TRADES trains on images without labels.
    let mut unsupervised = manifest_with_additional_images(&json!({"none": {}}));
    let training = &mut unsupervised["spec"]["training"];
    training["objective"] = json!({"trades": {}});
    training["attack"] = json!({"pgd": {"steps": 1}});
    let (weights, steps) = run(&unsupervised, &[("--additional-images", &unlabelled)]).unwrap();
    assert!(steps == 117 && weights != expected.0);
}
