//! `examples/imagenet.yaml` at a reduced size, and synthetic JPEG files for it.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use datjob_api::manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use turbojpeg::{Image, PixelFormat, Subsamp};

const CLASSES: [(&str, [u8; 3]); 3] =
    [("n01", [210, 60, 60]), ("n02", [60, 190, 70]), ("n03", [70, 70, 200])];

/// An image of a class: a colour that varies by position and image number.
fn jpeg(colour: [u8; 3], number: usize) -> Vec<u8> {
    let (width, height) = (40 + number % 7 * 5, 40 + number % 5 * 6);
    let pixel =
        |x: usize, y: usize| colour.map(|value| value - 40 + ((x * 3 + y * 5 + number * 17) % 60) as u8);
    let pixels: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let image = Image { pixels: &*pixels, width, pitch: width * 3, height, format: PixelFormat::RGB };
    turbojpeg::compress(image, 90, Subsamp::Sub2x2).unwrap().to_vec()
}

/// Writes the same images as an image folder and as shards, in the same order.
pub(crate) fn write_datasets(dir: &Path) {
    for (part, count) in [("train", 40), ("val", 10)] {
        let mut tar = None;
        for (label, (class, colour)) in CLASSES.iter().enumerate() {
            let folder = dir.join("folder").join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(dir.join("shards")).unwrap();
            for number in 0..count {
                let bytes = jpeg(*colour, number + if part == "val" { 1000 } else { 0 });
                fs::write(folder.join(format!("{number:04}.JPEG")), &bytes).unwrap();
                if number % 20 == 0 {
                    let shard = dir.join("shards").join(format!("{part}-{label}{number:04}.tar"));
                    tar = Some(tar::Builder::new(File::create(shard).unwrap()));
                }
                let tar = tar.as_mut().unwrap();
                for (extension, bytes) in [("jpg", &*bytes), ("cls", format!("{label}\n").as_bytes())] {
                    let mut header = tar::Header::new_gnu();
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, format!("{class}/{number:04}.{extension}"), bytes).unwrap();
                }
            }
        }
    }
}

/// The manifest of the example, with a smaller network, smaller images and fewer epochs.
pub(crate) fn reduced_manifest(dataset: &str) -> Value {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/imagenet.yaml");
    let job = manifest::read(&example).unwrap();
    let mut training = serde_json::to_value(&job.spec.training).unwrap();
    training["model"]["architecture"] = "resnet18".into();
    training["data"]["dataset"] = dataset.into();
    training["data"]["imageSize"] = 32.into();
    training["data"]["validation"]["count"] = 20.into();
    training["optimizer"]["lamb"]["learningRate"] = 0.02.into();
    training["schedule"] = json!({
        "epochs": 4,
        "batchSize": 20,
        "warmupEpochs": 1,
        "decay": {"piecewise": {"at": [2, 3], "factor": 0.1}}
    });
    training["evaluation"]["final"] = json!([{"pgd": {"steps": 10}}]);
    json!({
        "apiVersion": "datjob.io/v1alpha1",
        "kind": "DatJob",
        "metadata": {"name": "small"},
        "spec": {
            "checkpoints": {"persistentVolumeClaim": {"claimName": "unused"}},
            "training": training
        }
    })
}

/// Runs `dat-trainer run`. Returns the results, or standard error if it fails.
pub(crate) fn run_trainer(
    manifest: &Value,
    data: &Path,
    workers: u32,
    environment: &[(&str, &str)],
) -> Result<Value, String> {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job.yaml");
    fs::write(&job, manifest.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dat-trainer"))
        .arg("run")
        .arg(&job)
        .args(["--workers", &workers.to_string(), "--data"])
        .arg(data)
        .arg("--checkpoints")
        .arg(dir.path())
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let results = fs::read(dir.path().join("small/results.json")).unwrap();
    let mut results = serde_json::from_slice::<Value>(&results).unwrap()["results"].clone();
    // The header names the data set; the tensors follow.
    let weights = fs::read(dir.path().join("small/best.safetensors")).unwrap();
    let header = u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
    results["sha256OfTensors"] = hex::encode(Sha256::digest(&weights[8 + header..])).into();
    Ok(results)
}
