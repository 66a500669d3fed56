//! `dat-trainer run` of `examples/imagenet.yaml` in small: generated JPEG files, in folders and in tar files.

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

use imagenet::{data, run, small};

#[test]
fn the_example_of_imagenet_is_a_manifest_of_the_papers_settings() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/imagenet.yaml");
    assert!(fs::read_to_string(&example).unwrap().lines().count() < 60);
    let training = manifest::read(&example).unwrap().spec.training;
    training.check(Topology { pods: 6, workers: 6, gpus: 6 }).unwrap();
    assert!((training.threat_model.epsilon.value() - 2.0 / 255.0).abs() < 1e-12);
    assert_eq!((training.schedule.epochs, training.schedule.batch_size), (30, 6 * 512));
    let variation = training.data.variation();
    assert!(variation.flip && variation.random_resized_crop.is_some_and(|part| part.min_area < 0.081));
}

#[test]
fn folders_and_shards_are_learned_and_give_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let folder = run(&small("image-folder"), &dir.path().join("folder"), 2, &[]).unwrap();
    println!("{folder}");
    assert_eq!(folder["clean"]["total"], 30);
    assert!(folder["clean"]["correct"].as_u64().unwrap() >= 25, "{folder}");
    assert!(folder["worstCase"]["correct"].as_u64().unwrap() >= 20, "{folder}");
    assert_eq!(folder["byClass"]["total"], json!([10, 10, 10]));
    let shards = run(&small("webdataset"), &dir.path().join("shards"), 2, &[]).unwrap();
    assert_eq!((&shards["sha256"], &shards["clean"]), (&folder["sha256"], &folder["clean"]));
}

#[test]
fn mixed_images_are_learned_and_a_seed_gives_the_same_run_twice() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let mut manifest = small("webdataset");
    manifest["spec"]["training"]["data"]["augmentation"] = json!({"cutMix": {}, "cutout": 8});
    let results = || run(&manifest, &dir.path().join("shards"), 2, &[]).unwrap();
    let first = results();
    println!("{first}");
    assert!(first["clean"]["correct"].as_u64().unwrap() >= 20, "{first}");
    assert_eq!(results(), first);
}

#[test]
fn what_the_files_do_not_allow_is_said() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let folder = dir.path().join("folder");
    let broken = folder.join("train/n02/0007.JPEG");
    fs::write(&broken, "no image").unwrap();
    let sentence = run(&small("image-folder"), &folder, 2, &[]).unwrap_err();
    assert!(sentence.contains(&format!("{}: not a JPEG or PNG image", broken.display())), "{sentence}");

    let mut many = small("image-folder");
    many["spec"]["training"]["data"]["validation"]["count"] = 119.into();
    let sentence = run(&many, &folder, 2, &[]).unwrap_err();
    assert!(
        sentence.contains("spec.training.schedule.batchSize: the smallest step of an epoch has size 1"),
        "{sentence}"
    );

    let mut certified = small("image-folder");
    certified["spec"]["training"]["evaluation"]["final"] = json!([{"fabT": {"targets": 3}}]);
    let sentence = run(&certified, &folder, 1, &[]).unwrap_err();
    assert!(
        sentence.contains("evaluation.final[0].fabT.targets: invalid value 3: must be at most 2"),
        "{sentence}"
    );
}

#[test]
fn a_run_fetches_its_data_with_the_keys_of_its_environment() {
    let server = s3::Server::new(Some(s3s::auth::SimpleAuth::from_single("key", "secret")));
    data(&server.folder.path().join("bucket"));
    let mut manifest = small("image-folder");
    manifest["spec"]["training"]["schedule"] = serde_json::json!({"epochs": 1, "batchSize": 20});
    manifest["spec"]["training"]["data"]["source"] = serde_json::json!({
        "objectStore": {"url": "s3://bucket/folder", "endpoint": server.url, "secretName": "keys"}
    });
    let run = |environment: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        imagenet::run(&manifest, dir.path(), 2, environment)
    };
    let results = run(&[("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")]).unwrap();
    assert_eq!(results["clean"]["total"], 30);
    let refused = run(&[]).unwrap_err();
    assert!(refused.contains("objectStore.secretName is set: the environment variables"), "{refused}");
}

#[test]
fn a_run_trusts_the_certificate_authorities_in_ssl_cert_file() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir.path().join("folder")).unwrap();
    let archive = archive.into_inner().unwrap();
    let sha256 = hex::encode(Sha256::digest(&archive));
    let server = https::Server::new(archive);
    let certificates = dir.path().join("authority.pem");
    fs::write(&certificates, &server.authority).unwrap();

    let mut manifest = small("image-folder");
    manifest["spec"]["training"]["schedule"] = json!({"epochs": 1, "batchSize": 20});
    manifest["spec"]["training"]["data"]["source"] = json!({"http": {"url": server.url, "sha256": sha256}});
    let run = |environment: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        imagenet::run(&manifest, dir.path(), 2, environment)
    };
    let results = run(&[("SSL_CERT_FILE", certificates.to_str().unwrap())]).unwrap();
    assert_eq!(results["clean"]["total"], 30);
    let refused = run(&[]).unwrap_err();
    assert!(refused.contains(&server.url) && refused.contains("UnknownIssuer"), "{refused}");
}
