//! Runs of `dat-trainer run`, each in a temporary directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::synthetic_image_folder::synthetic_image_folder;

/// A short training on the synthetic image folder.
pub(crate) fn manifest() -> Value {
    json!({
        "apiVersion": "datjob.io/v1alpha1",
        "kind": "DatJob",
        "metadata": {"name": "test"},
        "spec": {
            "replicas": 2,
            "checkpoints": {"persistentVolumeClaim": {"claimName": "unused"}},
            "training": {
                "seed": 3,
                "model": {"architecture": "small-cnn", "normalization": "Dataset"},
                "data": {
                    "dataset": "image-folder",
                    "imageSize": 32,
                    "source": {"volume": {"persistentVolumeClaim": {"claimName": "unused"}}},
                    "validation": {"count": 200},
                    "augmentation": {"crop": 1, "flip": false}
                },
                "threatModel": {"epsilon": "0.1"},
                "attack": {"fgsm": {}},
                "optimizer": {"sgd": {"learningRate": 0.05}},
                "schedule": {"epochs": 3, "batchSize": 64},
                "evaluation": {"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 2}}]}
            }
        }
    })
}

/// A training of one epoch on the synthetic MNIST.
#[allow(dead_code, reason = "only some tests need images of MNIST's shape")]
pub(crate) fn mnist_manifest() -> Value {
    let mut manifest = manifest();
    let training = &mut manifest["spec"]["training"];
    training["data"]["dataset"] = "mnist".into();
    if let Some(data) = training["data"].as_object_mut() {
        data.remove("imageSize");
    }
    training["model"] = json!({"architecture": "small-cnn"});
    training["schedule"] = json!({"epochs": 1, "batchSize": 1024});
    if let Some(training) = training.as_object_mut() {
        training.remove("optimizer");
    }
    manifest
}

/// A directory with a manifest and the outputs of its run.
pub(crate) struct Run {
    pub(crate) directory: tempfile::TempDir,
}

impl Run {
    pub(crate) fn new(manifest: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("# the first document is not the job\nkind: ConfigMap\n---\n{manifest}\n");
        fs::write(directory.path().join("job.yaml"), text).unwrap();
        Self { directory }
    }

    /// The path of an output file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("checkpoints/test").join(name)
    }

    /// The command `dat-trainer run` with two workers.
    pub(crate) fn command(&self, data: &Path) -> Command {
        self.command_with(data, 2)
    }

    /// The command `dat-trainer run` with a number of workers.
    pub(crate) fn command_with(&self, data: &Path, workers: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dat-trainer"));
        command
            .arg("run")
            .arg(self.directory.path().join("job.yaml"))
            .args(["--workers", &workers.to_string(), "--data"])
            .arg(data);
        command.arg("--checkpoints").arg(self.directory.path().join("checkpoints"));
        command
    }

    pub(crate) fn start(&self) -> Child {
        self.command(synthetic_image_folder()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs to completion on the synthetic image folder and returns standard output.
    pub(crate) fn finish(&self) -> String {
        self.finish_on(synthetic_image_folder())
    }

    pub(crate) fn finish_on(&self, data: &Path) -> String {
        let output = self.command(data).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs, requires a failure and returns standard error.
    pub(crate) fn fail(&self, data: &Path) -> String {
        let output = self.command(data).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn results(&self) -> Value {
        self.json("results.json")["results"].clone()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap()
    }

    pub(crate) fn wait_for(&self, name: &str) {
        let started = Instant::now();
        while !self.file(name).exists() {
            assert!(started.elapsed() < Duration::from_mins(5), "{name} does not exist after 5 minutes");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
