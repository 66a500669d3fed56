//! Additional volumes and their mounts. Pure.

use datjob_api::{
    contract,
    datjob::{PodOptions, Volume},
};
use k8s_openapi::api::core::v1::VolumeMount;

use super::{InvalidSpec, check_unique, refuse};

/// Prefix of the names of the operator's volumes.
const VOLUME_PREFIX: &str = "datjob-";

const RESERVED_PATHS: [&str; 6] = [
    contract::TRAINING_DIR,
    contract::DATA_DIR,
    contract::FILES_DIR,
    contract::CHECKPOINT_DIR,
    contract::SCRATCH_DIR,
    contract::SHARED_MEMORY_DIR,
];

pub(super) fn check(pod: &PodOptions) -> Result<(), InvalidSpec> {
    pod.volumes.iter().try_for_each(check_volume)?;
    check_unique("spec.pod.volumes", pod.volumes.iter().map(|volume| volume.name.as_str()))?;
    pod.volume_mounts.iter().try_for_each(|mount| check_mount(&pod.volumes, mount))?;
    check_unique("spec.pod.volumeMounts", pod.volume_mounts.iter().map(|mount| mount.mount_path.as_str()))
}

fn check_volume(volume: &Volume) -> Result<(), InvalidSpec> {
    let name = &volume.name;
    if name.starts_with(VOLUME_PREFIX) {
        let problem = format!("{name:?} has the reserved prefix {VOLUME_PREFIX}; choose another name");
        return refuse("spec.pod.volumes", problem);
    }
    let sources = [
        volume.persistent_volume_claim.is_some(),
        volume.config_map.is_some(),
        volume.secret.is_some(),
        volume.empty_dir.is_some(),
    ];
    if sources.into_iter().filter(|is_set| *is_set).count() == 1 {
        return Ok(());
    }
    refuse(
        "spec.pod.volumes",
        format!("{name:?} must have exactly one of persistentVolumeClaim, configMap, secret and emptyDir"),
    )
}

/// Checks that a mount has a volume and hides no directory of the trainer.
fn check_mount(volumes: &[Volume], mount: &VolumeMount) -> Result<(), InvalidSpec> {
    let field = "spec.pod.volumeMounts";
    if !volumes.iter().any(|volume| volume.name == mount.name) {
        return refuse(field, format!("unknown volume {:?}; add it to spec.pod.volumes", mount.name));
    }
    let path = components(&mount.mount_path);
    let overlaps = |reserved: &&str| {
        let reserved = components(reserved);
        path.starts_with(&reserved) || reserved.starts_with(&path)
    };
    match RESERVED_PATHS.into_iter().find(overlaps) {
        Some(reserved) => refuse(
            field,
            format!(
                "path {:?} overlaps {reserved}, which the trainer uses; choose another path",
                mount.mount_path
            ),
        ),
        None => Ok(()),
    }
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}
