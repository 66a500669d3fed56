//! Valid specs, and the field that each refusal names.

use super::*;
use crate::training::{Backend, FinalAttack};

fn example() -> Training {
    serde_json::from_value(serde_json::json!({
        "model": {"architecture": "small-cnn"},
        "data": {"dataset": "fashion-mnist", "source": {"image": {"reference": "data"}}},
        "threatModel": {"epsilon": "0.1"},
        "attack": {"fgsm": {}},
        "schedule": {"epochs": 2}
    }))
    .unwrap()
}

const TWO: Topology = Topology { pods: 2, workers: 1, gpus: 0 };

fn problem(change: impl FnOnce(&mut Training)) -> String {
    let mut training = example();
    change(&mut training);
    training.check(TWO).unwrap_err().to_string()
}

#[test]
fn accepts_the_minimal_spec() {
    example().check(TWO).unwrap();
}

#[test]
fn refusals_name_the_field() {
    let epsilon = |text: &str| text.parse().unwrap();
    assert!(
        problem(|t| t.threat_model.epsilon = epsilon("8"))
            .starts_with("spec.training.threatModel.epsilon: invalid value 8: ")
    );
    assert!(problem(|t| t.threat_model.epsilon = epsilon("0")).contains("threatModel.epsilon"));
    assert!(problem(|t| t.schedule.batch_size = 1).contains("must be at least the world size (2)"));
    assert!(problem(|t| t.schedule.epochs = 0).contains("schedule.epochs"));
    assert!(problem(|t| t.schedule.warmup_epochs = 1).contains("warmupEpochs"));
    assert!(problem(|t| t.evaluation.final_.clear()).contains("evaluation.final"));
    let stem = problem(|t| t.model.stem = crate::training::Stem::ImageNet);
    assert!(stem.starts_with("spec.training.model.stem: stem requires architecture resnet18"), "{stem}");
    let nccl = problem(|t| t.communication.backend = Backend::Nccl);
    assert!(nccl.starts_with("spec.training.communication.backend: ") && nccl.contains("nvidia.com/gpu"));
    let sgd = crate::training::Sgd { learning_rate: f64::NAN, ..Default::default() };
    assert!(problem(|t| t.optimizer = crate::training::Optimizer::Sgd(sgd)).contains("learningRate"));
    let certify = crate::training::Certify { sigma: Some(f64::NAN), ..Default::default() };
    assert!(
        problem(|t| t.evaluation.certify = Some(certify)).contains("evaluation.certify.sigma: invalid value")
    );
}

#[test]
fn rejects_out_of_range_sweeps() {
    let sweep = |json: &str| {
        let sweep = serde_json::from_str(json).unwrap();
        problem(|t| t.evaluation.sweep = Some(sweep))
    };
    assert!(
        sweep(r#"{"epsilon": ["0.1", "2"]}"#)
            .contains("evaluation.sweep.epsilon[1]: invalid value 2: must be")
    );
    assert!(sweep(r#"{"steps": [10, 0]}"#).contains("evaluation.sweep.steps[1]: invalid value 0: must be"));
    assert!(sweep(&format!(r#"{{"steps": {:?}}}"#, [1; 17])).contains("at most 16"));
}

#[test]
fn smoothing_requires_pgd_and_certification_requires_a_sigma() {
    let smoothing = |t: &mut Training| t.smoothing = serde_json::from_str(r#"{"sigma": 0.25}"#).unwrap();
    assert!(problem(smoothing).starts_with("spec.training.attack: attack.fgsm and attack.nFgsm require"));
    let certify = |t: &mut Training| t.evaluation.certify = Some(crate::training::Certify::default());
    assert!(problem(certify).contains(
        "evaluation.certify.sigma: certify.sigma, the standard deviation of the noise, is required"
    ));
    let mut both = example();
    smoothing(&mut both);
    certify(&mut both);
    both.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
    both.check(TWO).unwrap();
    assert!(both.certified_sigma().is_some_and(|sigma| (sigma - 0.25).abs() < 1e-12));
}

#[test]
fn rejects_targets_of_unknown_attacks() {
    let mut training = example();
    let target =
        |attack: Option<&str>| crate::training::Target { attack: attack.map(str::to_owned), accuracy: 45.0 };
    for attack in [None, Some("pgd-20")] {
        training.evaluation.target = Some(target(attack));
        training.check(TWO).unwrap();
    }
    let wrong = problem(|t| t.evaluation.target = Some(target(Some("autoattack"))));
    assert!(
        wrong.starts_with(
            "spec.training.evaluation.target.attack: target.attack must be the name of an attack"
        ),
        "{wrong}"
    );
}

#[test]
fn rejects_unsupported_combinations_of_attack_norm_and_objective() {
    let trades = |t: &mut Training| t.objective = serde_json::from_str(r#"{"trades": {}}"#).unwrap();
    assert!(problem(trades).starts_with("spec.training.attack: attack.fgsm and attack.nFgsm require"));
    let l2 = |t: &mut Training| {
        t.threat_model.norm = Norm::L2;
        t.threat_model.epsilon = "3.0".parse().unwrap();
    };
    assert!(
        problem(l2)
            .starts_with("spec.training.attack: attack.fgsm and attack.nFgsm require threatModel.norm Linf")
    );
    let mut both = example();
    trades(&mut both);
    l2(&mut both);
    both.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
    both.check(TWO).unwrap();
    both.threat_model.epsilon = "101".parse().unwrap();
    assert!(both.check(TWO).unwrap_err().to_string().contains("greater than 0 and at most 100"));
}

#[test]
fn rejects_more_targets_than_other_classes() {
    let apgd =
        |targets: u32| FinalAttack::ApgdT(crate::training::Targeted { steps: None, targets: Some(targets) });
    assert!(problem(|t| t.evaluation.final_ = vec![apgd(10)]).contains("evaluation.final[0].apgdT.targets"));
    let mut training = example();
    training.evaluation.final_ = vec![apgd(9)];
    training.check(TWO).unwrap();
    assert_eq!(apgd(9).name(), "apgd-t-100-9");
}

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
fn rejects_out_of_range_optimizers_and_scales_the_learning_rate() {
    for (optimizer, field) in [
        (r#"{"lamb": {"beta2": 1.0}}"#, "optimizer.lamb.beta2"),
        (r#"{"adamW": {"epsilon": -1}}"#, "optimizer.adamW.epsilon"),
        (r#"{"lars": {"trust": 11}}"#, "optimizer.lars.trust"),
        (r#"{"lars": {"learningRate": 1e9}}"#, "optimizer.lars.learningRate"),
    ] {
        let sentence = problem(|t| t.optimizer = serde_json::from_str(optimizer).unwrap());
        assert!(sentence.starts_with(&format!("spec.training.{field}: ")), "{sentence}");
    }
    let scale = |rule: &str| {
        let mut schedule = example().schedule;
        schedule.batch_size = 1024;
        let json = format!(r#"{{"rule": "{rule}", "baseBatchSize": 256}}"#);
        schedule.scaling = Some(serde_json::from_str(&json).unwrap());
        schedule.scale()
    };
    assert!((scale("Linear") - 4.0).abs() < 1e-12 && (scale("SquareRoot") - 2.0).abs() < 1e-12);
    assert!((example().schedule.scale() - 1.0).abs() < 1e-12);
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
fn local_steps_exclude_compression_and_overlap() {
    let int8 =
        |json: &str| serde_json::from_str(&format!(r#"{{"compression": {{"int8": {json}}}}}"#)).unwrap();
    for (json, sentence) in [
        (
            r#"{"bucket": 8}"#,
            "communication.compression.int8.bucket: invalid value 8: must be between 16 and 65536, inclusive",
        ),
        (
            r#"{"sides": 3}"#,
            "communication.compression.int8.sides: invalid value 3: must be between 1 and 2, inclusive",
        ),
    ] {
        assert!(problem(|t| t.communication = int8(json)).contains(sentence), "{json}");
    }
    assert!(
        problem(|t| t.schedule.local_steps = Some(0))
            .contains("schedule.localSteps: invalid value 0: must be between")
    );
    let mut training = example();
    training.schedule.local_steps = Some(4);
    training.check(TWO).unwrap();
    let compressed = problem(|t| {
        t.schedule.local_steps = Some(4);
        t.communication = int8("{}");
    });
    let expected = "spec.training.schedule.localSteps: localSteps averages weights instead of gradients";
    assert!(compressed.starts_with(expected), "{compressed}");
    let overlapped = problem(|t| {
        t.schedule.local_steps = Some(4);
        t.attack.overlap = true;
    });
    assert!(overlapped.starts_with(expected), "{overlapped}");
}

#[test]
fn one_local_step_does_not_change_the_hash() {
    let mut training = example();
    let hash = training.hash();
    training.schedule.local_steps = Some(1);
    assert_eq!(training.hash(), hash);
}

#[test]
fn nccl_requires_a_gpu_per_rank() {
    let mut training = example();
    training.communication.backend = Backend::Nccl;
    training.check(Topology { pods: 2, workers: 4, gpus: 4 }).unwrap();
    let problem = training.check(Topology { pods: 2, workers: 4, gpus: 2 }).unwrap_err().to_string();
    assert!(problem.contains("workers per pod (4) exceed the GPUs per pod (2)"), "{problem}");
}

#[test]
fn rejects_unknown_fields() {
    let mut json = serde_json::to_value(example()).unwrap();
    json["attack"] = serde_json::json!({"fgsm": {"stepsize": "0.1"}});
    assert!(serde_json::from_value::<Training>(json).unwrap_err().to_string().contains("stepsize"));
}

#[test]
fn the_hash_depends_on_the_content() {
    let mut other = example();
    assert_eq!(example().hash(), other.hash());
    other.seed = 1;
    assert_ne!(example().hash(), other.hash());
}

#[test]
fn rejects_duplicate_attacks() {
    let twice = r#"[{"pgd": {"steps": 20}}, {"pgd": {"steps": 20, "stepSize": "1/255"}}]"#;
    let sentence = problem(|t| t.evaluation.final_ = serde_json::from_str(twice).unwrap());
    assert!(
        sentence.starts_with("spec.training.evaluation.final: duplicate attack \"pgd-20\""),
        "{sentence}"
    );
}

#[test]
fn rejects_apgd_t_with_fewer_than_four_classes() {
    let contents = |classes| crate::training::Contents {
        image_shape: [3, 32, 32],
        classes,
        training_images: 5000,
        test_images: 100,
    };
    for attack in [r#"[{"autoAttack": {}}]"#, r#"[{"apgdT": {"targets": 2}}]"#] {
        let mut training = example();
        training.evaluation.final_ = serde_json::from_str(attack).unwrap();
        let sentence = training.check_contents(&contents(3), 1).unwrap_err().to_string();
        assert!(
            sentence.contains("requires at least 4 classes") && sentence.contains("has 3;"),
            "{sentence}"
        );
        training.check_contents(&contents(4), 1).unwrap();
    }
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

#[test]
fn the_size_of_a_weight_perturbation_depends_on_the_objective() {
    let gamma = |perturbation: &str, objective: &str| {
        let perturbation: crate::training::WeightPerturbation = serde_json::from_str(perturbation).unwrap();
        perturbation.gamma(&serde_json::from_str(objective).unwrap())
    };
    let (cross_entropy, trades) = (r#"{"crossEntropy": {}}"#, r#"{"trades": {}}"#);
    let all = [gamma("{}", cross_entropy), gamma("{}", trades), gamma(r#"{"gamma": 0.02}"#, trades)];
    assert_eq!(all.map(|gamma| (gamma * 1000.0).round() as i64), [10, 5, 20]);
}
