//! Volumes and volume mounts of a trainer pod. Pure.

use datjob_api::{
    contract,
    datjob::{self, Checkpoints},
    training::{FileSource, NamedFile, Source},
};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, SecretVolumeSource,
    Volume, VolumeMount,
};

use super::config_map;
use crate::controller::validate::ValidJob;

/// Name of the init container that runs a data image.
pub(super) const DATA_CONTAINER: &str = "data";

const TRAINING: &str = "datjob-training";
const CHECKPOINTS: &str = "datjob-checkpoints";
const DATA: &str = "datjob-data";
const SCRATCH: &str = "datjob-scratch";
const SHARED_MEMORY: &str = "datjob-shared-memory";

pub(super) fn volumes(valid: &ValidJob<'_>) -> Vec<Volume> {
    let spec = &valid.job.spec;
    let Checkpoints::PersistentVolumeClaim(checkpoints) = &spec.checkpoints;
    let data = match &spec.training.data.source {
        Source::Volume(volume) => {
            let claim = &volume.persistent_volume_claim.claim_name;
            // A claim for data and checkpoints is attached once, so only its mount is read-only.
            claim_volume(DATA, claim, *claim != checkpoints.claim_name)
        }
        Source::Image(_) | Source::Http(_) | Source::ObjectStore(_) => {
            empty_dir(DATA, EmptyDirVolumeSource::default())
        }
    };
    let mut volumes = vec![
        Volume {
            name: TRAINING.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: config_map::name(valid.identity, &spec.training),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        claim_volume(CHECKPOINTS, &checkpoints.claim_name, false),
        data,
        empty_dir(SCRATCH, EmptyDirVolumeSource::default()),
    ];
    volumes.extend(
        volume_files(valid).map(|(file, claim)| {
            claim_volume(&file_volume_name(file), claim, claim != checkpoints.claim_name)
        }),
    );
    if let Some(limit) = &spec.pod.shared_memory {
        let memory = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(limit.clone()) };
        volumes.push(empty_dir(SHARED_MEMORY, memory));
    }
    volumes.extend(spec.pod.volumes.iter().map(user_volume));
    volumes
}

pub(super) fn mounts(valid: &ValidJob<'_>) -> Vec<VolumeMount> {
    let spec = &valid.job.spec;
    let data = match &spec.training.data.source {
        // Without a subPath, because the kubelet creates a missing one on the volume, also through a read-only mount. The
        // trainer checks `volume.path` and reports a missing one. It can read the rest of the claim, as every pod of the
        // namespace can that mounts the claim.
        Source::Volume(_) | Source::Image(_) => mount(DATA, contract::DATA_DIR, true),
        // The agent writes the files that it downloads.
        Source::Http(_) | Source::ObjectStore(_) => mount(DATA, contract::DATA_DIR, false),
    };
    let mut mounts = vec![
        mount(TRAINING, contract::TRAINING_DIR, true),
        mount(CHECKPOINTS, contract::CHECKPOINT_DIR, false),
        data,
        mount(SCRATCH, contract::SCRATCH_DIR, false),
    ];
    mounts.extend(volume_files(valid).map(|(file, _)| {
        mount(&file_volume_name(file), &format!("{}/{}", contract::FILES_DIR, file.name()), true)
    }));
    if spec.pod.shared_memory.is_some() {
        mounts.push(mount(SHARED_MEMORY, contract::SHARED_MEMORY_DIR, false));
    }
    mounts.extend(spec.pod.volume_mounts.clone());
    mounts
}

/// Additional files on volumes, with the names of their claims.
fn volume_files<'a>(valid: &ValidJob<'a>) -> impl Iterator<Item = (NamedFile, &'a str)> {
    valid.job.spec.training.files().into_iter().filter_map(|(file, source)| match source {
        FileSource::Volume(volume) => Some((file, volume.persistent_volume_claim.claim_name.as_str())),
        FileSource::Http(_) => None,
    })
}

fn file_volume_name(file: NamedFile) -> String {
    format!("datjob-{}", file.name())
}

pub(super) fn data_container_mounts() -> Vec<VolumeMount> {
    vec![mount(DATA, contract::DATA_DIR, false), mount(SCRATCH, contract::SCRATCH_DIR, false)]
}

fn user_volume(volume: &datjob::Volume) -> Volume {
    Volume {
        name: volume.name.clone(),
        persistent_volume_claim: volume.persistent_volume_claim.as_ref().map(|claim| {
            PersistentVolumeClaimVolumeSource { claim_name: claim.claim_name.clone(), read_only: None }
        }),
        config_map: volume
            .config_map
            .as_ref()
            .map(|map| ConfigMapVolumeSource { name: map.name.clone(), ..ConfigMapVolumeSource::default() }),
        secret: volume.secret.as_ref().map(|secret| SecretVolumeSource {
            secret_name: Some(secret.secret_name.clone()),
            ..SecretVolumeSource::default()
        }),
        empty_dir: volume.empty_dir.clone(),
        ..Volume::default()
    }
}

fn claim_volume(name: &str, claim: &str, read_only: bool) -> Volume {
    Volume {
        name: name.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.into(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    }
}

fn empty_dir(name: &str, source: EmptyDirVolumeSource) -> Volume {
    Volume { name: name.into(), empty_dir: Some(source), ..Volume::default() }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
