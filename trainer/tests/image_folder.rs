//! `dat-trainer run` of `examples/imagenet.yaml` at a reduced size, on synthetic JPEG files in folders and in tar files.

use std::{fs, path::Path};

use datjob_api::manifest;
use datjob_api::training::Topology;
use serde_json::json;
use sha2::{Digest as _, Sha256};

#[path = "common/https.rs"]
mod https;
#[path = "common/imagenet.rs"]
mod imagenet;
#[expect(dead_code, reason = "other tests make the server fail")]
#[path = "../data/tests/common/s3.rs"]
mod s3;

use imagenet::{reduced_manifest, run_trainer, write_datasets};

#[test]
fn imagenet_example_has_the_settings_of_the_paper() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/imagenet.yaml");
    assert!(fs::read_to_string(&example).unwrap().lines().count() < 60);
    let training = manifest::read(&example).unwrap().spec.training;
    training.check(Topology { pods: 6, workers: 6, gpus: 6 }).unwrap();
    assert!((training.threat_model.epsilon.value() - 2.0 / 255.0).abs() < 1e-12);
    assert_eq!((training.schedule.epochs, training.schedule.batch_size), (30, 6 * 512));
    let variation = training.data.variation();
    assert!(variation.flip && variation.random_resized_crop.is_some_and(|crop| crop.min_area < 0.081));
}

#[test]
fn folders_and_shards_give_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    write_datasets(dir.path());
    let folder = run_trainer(&reduced_manifest("image-folder"), &dir.path().join("folder"), 2, &[]).unwrap();
    println!("{folder}");
    assert_eq!(folder["clean"]["total"], 30);
    assert!(folder["clean"]["correct"].as_u64().unwrap() >= 25, "{folder}");
    assert!(folder["worstCase"]["correct"].as_u64().unwrap() >= 20, "{folder}");
    assert_eq!(folder["byClass"]["total"], json!([10, 10, 10]));
    let shards = run_trainer(&reduced_manifest("webdataset"), &dir.path().join("shards"), 2, &[]).unwrap();
    assert_eq!(shards["sha256OfTensors"], folder["sha256OfTensors"]);
    assert_eq!(shards["clean"], folder["clean"]);
}

#[test]
fn training_with_cut_mix_learns_and_is_reproducible() {
    let dir = tempfile::tempdir().unwrap();
    write_datasets(dir.path());
    let mut manifest = reduced_manifest("webdataset");
    manifest["spec"]["training"]["data"]["augmentation"] = json!({"cutMix": {}, "cutout": 8});
    let results = || run_trainer(&manifest, &dir.path().join("shards"), 2, &[]).unwrap();
    let first = results();
    println!("{first}");
    assert!(first["clean"]["correct"].as_u64().unwrap() >= 20, "{first}");
    assert_eq!(results(), first);
}

#[test]
fn reports_invalid_images_and_settings_that_the_files_do_not_support() {
    let dir = tempfile::tempdir().unwrap();
    write_datasets(dir.path());
    let folder = dir.path().join("folder");
    let broken = folder.join("train/n02/0007.JPEG");
    fs::write(&broken, "no image").unwrap();
    // Training never reads a test image, and would find it only at its end.
    let cut = fs::read_dir(folder.join("val/n01")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&cut).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let message = run_trainer(&reduced_manifest("image-folder"), &folder, 2, &[]).unwrap_err();
    assert!(message.contains("2 faults in the data set: "), "{message}");
    assert!(message.contains(&format!("{}: not a JPEG or PNG image", broken.display())), "{message}");
    assert!(message.contains(&format!("{}: cannot decode the JPEG image", cut.display())), "{message}");
    assert!(!message.contains("Checkpoint") && !message.contains("loss"), "before the first step: {message}");
    fs::write(&cut, whole).unwrap();

    let mut large_validation_split = reduced_manifest("image-folder");
    large_validation_split["spec"]["training"]["data"]["validation"]["count"] = 119.into();
    let message = run_trainer(&large_validation_split, &folder, 2, &[]).unwrap_err();
    assert!(
        message.contains("spec.training.data.validation.count: invalid value 119: must be at most 118"),
        "{message}"
    );

    let mut many_targets = reduced_manifest("image-folder");
    many_targets["spec"]["training"]["evaluation"]["final"] = json!([{"fabT": {"targets": 3}}]);
    let message = run_trainer(&many_targets, &folder, 1, &[]).unwrap_err();
    assert!(
        message.contains("evaluation.final[0].fabT.targets: invalid value 3: must be at most 2"),
        "{message}"
    );
}

#[test]
fn downloads_data_with_the_credentials_in_the_environment() {
    let server = s3::Server::new(Some(s3s::auth::SimpleAuth::from_single("key", "secret")));
    write_datasets(&server.folder.path().join("bucket"));
    let mut manifest = reduced_manifest("image-folder");
    manifest["spec"]["training"]["schedule"] = json!({"epochs": 1, "batchSize": 20});
    manifest["spec"]["training"]["data"]["source"] = json!({
        "objectStore": {"url": "s3://bucket/folder", "endpoint": server.url, "secretName": "keys"}
    });
    let run = |environment: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        run_trainer(&manifest, dir.path(), 2, environment)
    };
    let results = run(&[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")]).unwrap();
    assert_eq!(results["clean"]["total"], 30);
    let refused = run(&[]).unwrap_err();
    assert!(refused.contains("objectStore.secretName is set: the environment variables"), "{refused}");
}

#[test]
fn trusts_the_certificate_authorities_in_ssl_cert_file() {
    let dir = tempfile::tempdir().unwrap();
    write_datasets(dir.path());
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir.path().join("folder")).unwrap();
    let archive = archive.into_inner().unwrap();
    let sha256 = hex::encode(Sha256::digest(&archive));
    let server = https::Server::new(archive);
    let certificates = dir.path().join("authority.pem");
    fs::write(&certificates, &server.authority).unwrap();

    let mut manifest = reduced_manifest("image-folder");
    manifest["spec"]["training"]["schedule"] = json!({"epochs": 1, "batchSize": 20});
    manifest["spec"]["training"]["data"]["source"] = json!({"http": {"url": server.url, "sha256": sha256}});
    let run = |environment: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        run_trainer(&manifest, dir.path(), 2, environment)
    };
    let results = run(&[("SSL_CERT_FILE", certificates.to_str().unwrap())]).unwrap();
    assert_eq!(results["clean"]["total"], 30);
    let refused = run(&[]).unwrap_err();
    assert!(refused.contains(&server.url) && refused.contains("UnknownIssuer"), "{refused}");
}
