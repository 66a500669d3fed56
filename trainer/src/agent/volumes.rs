//! Paths of the spec on the mounted volumes of claims.

use std::path::PathBuf;

use datjob_api::{
    Training,
    training::{FileSource, Source},
};
use datjob_data::volume::{self, PathKind, VolumePathError};

use super::Config;

/// A path of the spec on the volume of a claim cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("spec.training.{field}.volume.path: {error}")]
pub struct InvalidVolumePath {
    /// Path of the field below `spec.training`.
    field: &'static str,
    /// The cause.
    #[source]
    error: VolumePathError,
}

impl Config {
    /// Directory of the data set's files.
    pub fn data_directory(&self, training: &Training) -> PathBuf {
        match &training.data.source {
            Source::Volume(volume) if self.files.mounted.is_some() && !volume.path.is_empty() => {
                self.data.join(&volume.path)
            }
            _ => self.data.clone(),
        }
    }

    /// Checks the paths on mounted volumes. A workstation has none.
    pub fn check_volumes(&self, training: &Training) -> Result<(), InvalidVolumePath> {
        let Some(files) = &self.files.mounted else { return Ok(()) };
        if let Source::Volume(volume) = &training.data.source {
            let claim = &volume.persistent_volume_claim.claim_name;
            volume::check_path(&self.data, claim, &volume.path, PathKind::Directory)
                .map_err(|error| InvalidVolumePath { field: "data.source", error })?;
        }
        training.files().into_iter().try_for_each(|(file, source)| match source {
            FileSource::Http(_) => Ok(()),
            FileSource::Volume(volume) => {
                let claim = &volume.persistent_volume_claim.claim_name;
                volume::check_path(&files.join(file.name()), claim, &volume.path, PathKind::File)
                    .map_err(|error| InvalidVolumePath { field: file.field(), error })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::Path, sync::Arc};

    use datjob_api::report::FailureReason;

    use super::*;
    use crate::agent::{self, Board, Ending, Files, config::TrainingSource};

    fn training(source: &serde_json::Value) -> Training {
        serde_json::from_value(serde_json::json!({
            "model": {"architecture": "small-cnn"},
            "data": {"dataset": "mnist", "source": source},
            "threatModel": {"epsilon": "0.1"},
            "attack": {"fgsm": {}},
            "schedule": {"epochs": 1}
        }))
        .unwrap()
    }

    /// The configuration of a pod whose volumes are mounted in a directory.
    fn in_pod(root: &Path) -> Config {
        Config {
            token: None,
            retries_pods: false,
            job_uid: "uid".into(),
            pod_uid: "pod".into(),
            address: "127.0.0.1".into(),
            pod_index: 0,
            replicas: 1,
            workers: 1,
            gpus: 0,
            attempt: 1,
            rendezvous_host: "localhost".into(),
            rendezvous_port: 0,
            store_bind: Ipv4Addr::LOCALHOST.into(),
            store_port: 0,
            training: TrainingSource::File(root.join("training.json")),
            data: root.join("data"),
            downloads: true,
            files: Files {
                mounted: Some(root.join("files")),
                given: BTreeMap::new(),
                downloaded: root.join("downloaded"),
            },
            checkpoints: root.join("checkpoints"),
            max_restarts: None,
        }
    }

    #[test]
    fn the_data_are_below_the_path_on_a_mounted_volume() {
        let root = tempfile::tempdir().unwrap();
        let mut config = in_pod(root.path());
        let data = |config: &Config, path: &str| {
            let claim = serde_json::json!({"claimName": "datasets"});
            let source = serde_json::json!({"volume": {"persistentVolumeClaim": claim, "path": path}});
            config.data_directory(&training(&source))
        };
        assert_eq!(data(&config, "sets/mnist"), root.path().join("data/sets/mnist"));
        assert_eq!(data(&config, ""), root.path().join("data"));
        let image = training(&serde_json::json!({"image": {"reference": "a"}}));
        assert_eq!(config.data_directory(&image), root.path().join("data"));
        config.files.mounted = None;
        assert_eq!(data(&config, "sets/mnist"), root.path().join("data"), "a folder on a workstation");
    }

    #[tokio::test]
    async fn a_missing_path_fails_the_job_with_the_reason_data() {
        let root = tempfile::tempdir().unwrap();
        let config = in_pod(root.path());
        fs::create_dir_all(root.path().join("data")).unwrap();
        let volume = serde_json::json!({"persistentVolumeClaim": {"claimName": "datasets"}, "path": "cifar"});
        let spec = training(&serde_json::json!({"volume": volume}));
        fs::write(root.path().join("training.json"), spec.to_json()).unwrap();
        let board = Arc::new(Board::new(&config.job_uid, &config.pod_uid, config.attempt));
        let ending = agent::work(&config, &board, tokio::sync::watch::channel(false).1).await;
        let Ending::Failed(failure) = ending else { panic!("{ending:?}") };
        assert_eq!(failure.reason, FailureReason::Data);
        assert!(failure.message.contains("\"datasets\""), "{}", failure.message);
        assert!(!root.path().join("data/cifar").exists());
    }

    #[test]
    fn a_missing_path_is_named_with_its_field_and_claim() {
        let root = tempfile::tempdir().unwrap();
        let config = in_pod(root.path());
        fs::create_dir_all(root.path().join("data/sets")).unwrap();
        fs::create_dir_all(root.path().join("files/initial-weights")).unwrap();
        let on = |claim: &str, path: &str| serde_json::json!({"volume": {"persistentVolumeClaim": {"claimName": claim}, "path": path}});
        let refusal = |training: &Training| config.check_volumes(training).map_err(|error| error.to_string());
        let sentence = refusal(&training(&on("datasets", "cifar"))).unwrap_err();
        assert!(
            sentence.starts_with("spec.training.data.source.volume.path: directory \"cifar\" not found")
                && sentence.contains("PersistentVolumeClaim \"datasets\""),
            "{sentence}"
        );
        let mut weights = training(&on("datasets", "sets"));
        refusal(&weights).unwrap();
        let source = serde_json::json!({"source": on("models", "best.pt")});
        weights.model.initial_weights = Some(serde_json::from_value(source).unwrap());
        let sentence = refusal(&weights).unwrap_err();
        assert!(
            sentence.starts_with(
                "spec.training.model.initialWeights.source.volume.path: file \"best.pt\" not found"
            ) && sentence.contains("PersistentVolumeClaim \"models\""),
            "{sentence}"
        );
        fs::write(root.path().join("files/initial-weights/best.pt"), "").unwrap();
        refusal(&weights).unwrap();
    }
}
