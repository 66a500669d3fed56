//! Data set, augmentation and files.

use super::*;

fn folder() -> Training {
    let mut training = example();
    training.data.dataset = crate::training::Dataset::ImageFolder;
    training
}

#[test]
fn rejects_an_image_size_for_images_of_fixed_size() {
    let sized = |mut training: Training, size| {
        training.data.image_size = Some(size);
        training.check(TWO).map_err(|invalid| invalid.to_string())
    };
    let sentence = sized(example(), 32).unwrap_err();
    assert!(
        sentence.starts_with(
            "spec.training.data.imageSize: imageSize requires dataset image-folder or webdataset"
        ),
        "{sentence}"
    );
    assert!(
        sized(folder(), 7).unwrap_err().contains("invalid value 7: must be between 8 and 1024, inclusive")
    );
    sized(folder(), 1024).unwrap();
    assert_eq!(folder().data.image_size(), 224);
}

#[test]
fn defaults_of_augmentation_depend_on_the_data_set() {
    let variation = |dataset: &str, augmentation: &str| {
        let mut data = example().data;
        data.dataset = serde_json::from_str(&format!("{dataset:?}")).unwrap();
        data.augmentation = serde_json::from_str(augmentation).unwrap();
        let crate::training::Variation { crop, flip, random_resized_crop, cutout, .. } = data.variation();
        (crop, flip, random_resized_crop.map(|part| part.min_area), cutout)
    };
    assert_eq!(variation("mnist", "{}"), (0, false, None, 0));
    assert_eq!(variation("cifar10", "{}"), (4, true, None, 0));
    assert_eq!(variation("webdataset", "{}"), (0, true, Some(0.08), 0));
    assert_eq!(variation("image-folder", r#"{"crop": 0, "cutout": 16}"#), (0, true, None, 16));
    assert_eq!(variation("cifar10", r#"{"randomResizedCrop": {}}"#), (0, true, Some(0.08), 0));
}

#[test]
fn rejects_invalid_augmentation() {
    let augmentation = |json: &str| {
        let augmentation = serde_json::from_str(json).unwrap();
        problem(|t| t.data.augmentation = augmentation)
    };
    assert!(
        augmentation(r#"{"cutout": 0}"#)
            .contains("data.augmentation.cutout: invalid value 0: must be between")
    );
    let area = augmentation(r#"{"randomResizedCrop": {"minArea": 1.5}}"#);
    assert!(area.contains("randomResizedCrop.minArea: invalid value 1.5: must be between"), "{area}");
    assert!(augmentation(r#"{"randomResizedCrop": {}, "crop": 4}"#).contains("mutually exclusive"));
    assert!(
        augmentation(r#"{"cutMix": {"alpha": 0}}"#)
            .contains("cutMix.alpha: invalid value 0: must be between")
    );
    let mart = problem(|t| {
        t.data.augmentation = serde_json::from_str(r#"{"cutMix": {}}"#).unwrap();
        t.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
        t.objective = serde_json::from_str(r#"{"mart": {}}"#).unwrap();
    });
    assert!(mart.contains("data.augmentation.cutMix: cutMix requires objective.crossEntropy"), "{mart}");
}

#[test]
fn checks_fields_that_depend_on_the_files() {
    let mut training = folder();
    training.evaluation.final_ =
        vec![FinalAttack::ApgdT(crate::training::Targeted { steps: None, targets: Some(500) })];
    training.check(TWO).unwrap();
    let contents = |classes, training_images| crate::training::Contents {
        image_shape: [3, 224, 224],
        classes,
        training_images,
        test_images: 10,
    };
    training.check_contents(&contents(1000, 5000), 2).unwrap();
    let sentence = |contents| training.check_contents(&contents, 2).unwrap_err().to_string();
    assert!(sentence(contents(100, 5000)).contains(
        "evaluation.final[0].apgdT.targets: invalid value 500: must be at most 99 (the number of classes, less one)"
    ));
    for (training_images, most) in [(1001, 999), (1000, 998), (1, 0)] {
        let expected = format!(
            "data.validation.count: invalid value 1000: must be at most {most} (the number of training images, less one for \
             each rank)"
        );
        let found = sentence(contents(1000, training_images));
        assert!(found.contains(&expected), "{found}");
    }
    let mut steps = training.clone();
    steps.schedule.batch_size = 1;
    let found = steps.check_contents(&contents(1000, 1010), 2).unwrap_err().to_string();
    assert!(
        found.contains("size 1, less than the world size 2 (training images: 10, batchSize: 1)"),
        "{found}"
    );
}

#[test]
fn rejects_invalid_object_stores() {
    let store = |json: &str| {
        let mut training = example();
        training.data.source = serde_json::from_str(&format!(r#"{{"objectStore": {json}}}"#)).unwrap();
        training.check(TWO).map_err(|invalid| invalid.to_string())
    };
    store(r#"{"url": "s3://a-bucket/some/prefix/"}"#).unwrap();
    for (json, field) in [
        (r#"{"url": "https://bucket/prefix"}"#, "url"),
        (r#"{"url": "s3://B/prefix"}"#, "url"),
        (r#"{"url": "s3://"}"#, "url"),
        (r#"{"url": "s3://bucket", "endpoint": "minio:9000"}"#, "endpoint"),
        (r#"{"url": "s3://bucket", "region": ""}"#, "region"),
        (r#"{"url": "s3://bucket", "secretName": ""}"#, "secretName"),
    ] {
        let sentence = store(json).unwrap_err();
        let field = format!("spec.training.data.source.objectStore.{field}: ");
        assert!(sentence.starts_with(&field), "{sentence}");
    }
    let source: crate::training::ObjectStoreSource =
        serde_json::from_str(r#"{"url": "s3://a.bucket/some/prefix/"}"#).unwrap();
    assert_eq!(source.bucket_and_prefix(), Some(("a.bucket", "some/prefix")));
}

#[test]
fn rejects_invalid_initial_weights() {
    let volume = |path: &str| {
        let source =
            serde_json::json!({"volume": {"persistentVolumeClaim": {"claimName": "c"}, "path": path}});
        serde_json::from_value(serde_json::json!({"source": source})).unwrap()
    };
    for path in ["", "/abs.pt", "a/../b.pt"] {
        let sentence = problem(|t| t.model.initial_weights = Some(volume(path)));
        assert!(
            sentence.starts_with("spec.training.model.initialWeights.source.volume.path: "),
            "{sentence}"
        );
    }
    let mut training = example();
    training.model.initial_weights = Some(volume("uid/best.safetensors"));
    training.check(TWO).unwrap();
    let http = r#"{"source": {"http": {"url": "https://example.com/w.pt", "sha256": "abc"}}}"#;
    let sentence = problem(|t| t.model.initial_weights = Some(serde_json::from_str(http).unwrap()));
    assert!(sentence.contains("model.initialWeights.source.http.sha256: invalid SHA-256"), "{sentence}");
}

#[test]
fn rejects_invalid_additional_images() {
    let additional = |labels: &str, fraction: f64| {
        let source = r#"{"volume": {"persistentVolumeClaim": {"claimName": "c"}, "path": "edm.npz"}}"#;
        let json = format!(r#"{{"source": {source}, "labels": {labels}, "perBatch": {fraction}}}"#);
        Some(serde_json::from_str(&json).unwrap())
    };
    let weights = r#"{"http": {"url": "https://example.com/t.pt", "sha256": "x"}}"#;
    let teacher = |model: &str| format!(r#"{{"teacher": {{"model": {model}, "weights": {weights}}}}}"#);
    let small = teacher(r#"{"architecture": "small-cnn"}"#);
    let stem = teacher(r#"{"architecture": "small-cnn", "stem": "ImageNet"}"#);
    for (labels, fraction, sentence) in [
        (
            r#"{"given": {}}"#,
            0.0,
            "data.additional.perBatch: invalid value 0: must be between 0.01 and 0.95, inclusive",
        ),
        (r#"{"none": {}}"#, 0.5, "data.additional.labels: labels.none requires objective.trades"),
        (&small, 0.5, "data.additional.labels.teacher.weights.http.sha256: invalid SHA-256"),
        (
            &stem.replace("\"x\"", &format!("{:?}", "0".repeat(64))),
            0.5,
            "labels.teacher.model.stem: stem requires architecture",
        ),
    ] {
        let found = problem(|t| t.data.additional = additional(labels, fraction));
        assert!(found.contains(sentence), "{found}");
    }
    let mut training = example();
    let hash = training.hash();
    training.data.additional = additional(r#"{"given": {}}"#, 0.5);
    training.check(TWO).unwrap();
    assert_ne!(training.hash(), hash);
    assert_eq!(training.files().len(), 1);
    training.objective = serde_json::from_str(r#"{"trades": {}}"#).unwrap();
    training.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
    training.data.additional = additional(r#"{"none": {}}"#, 0.5);
    training.check(TWO).unwrap();
    let folder = problem(|t| {
        t.data.dataset = crate::training::Dataset::ImageFolder;
        t.data.additional = additional(r#"{"given": {}}"#, 0.5);
    });
    assert!(folder.starts_with("spec.training.data.additional: additional is unsupported with"), "{folder}");
}

#[test]
fn rejects_a_fraction_below_one_image() {
    let additional = |fraction: f64, batch: u32| {
        problem(|t| {
            let claim = serde_json::json!({"persistentVolumeClaim": {"claimName": "c"}, "path": "x.npz"});
            let json = serde_json::json!({"source": {"volume": claim}, "perBatch": fraction});
            t.data.additional = serde_json::from_value(json).unwrap();
            t.schedule.batch_size = batch;
        })
    };
    let sentence = additional(0.01, 32);
    assert!(
        sentence.contains("additional.perBatch: perBatch × schedule.batchSize gives zero additional images"),
        "{sentence}"
    );
}

#[test]
fn rejects_urls_with_a_password() {
    let source = |url: &str| {
        let json = serde_json::json!({"http": {"url": url, "sha256": "0".repeat(64)}});
        let mut training = example();
        training.data.source = serde_json::from_value(json).unwrap();
        training.check(TWO).map_err(|error| error.to_string())
    };
    source("https://host/a@b.tar?x=@").unwrap();
    let sentence = source("https://me:secret@host/data.tar").unwrap_err();
    assert!(
        sentence.contains("data.source.http.url: must not contain a user or a password")
            && !sentence.contains("secret")
    );
    assert!(source("ftp://host/x").unwrap_err().contains("must start with http:// or https://"));

    let bucket = |url: &str| {
        let json = serde_json::json!({"objectStore": {"url": url}});
        problem(|training| training.data.source = serde_json::from_value(json).unwrap())
    };
    for url in ["s3://key:secret@bucket/x", "s3://key:sec/ret@bucket/x"] {
        let sentence = bucket(url);
        assert!(sentence.contains("objectStore.url: must not contain a user or a password"), "{sentence}");
        assert!(!sentence.contains("key") && !sentence.contains("sec"), "{sentence}");
    }
    assert!(bucket("s3://B_/x").contains("invalid S3 URL \"s3://B_/x\""));
}
