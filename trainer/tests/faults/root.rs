//! The root directory of a container: the directories of the contract, and all else as on the host.
//!
//! The directories of the contract do not exist on the host, and are not created there. The root is a directory with mount
//! points for them and links to the host's files, which are mounted below `/.host`. The mounts are in a private mount namespace.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use datjob_api::contract;

/// Mount point of the host's root directory in a root.
const HOST: &str = ".host";

/// The path of a file of the host in a container, also if a directory of the contract hides it.
pub(crate) fn in_container(path: &Path) -> PathBuf {
    Path::new("/").join(HOST).join(path.strip_prefix("/").unwrap())
}

/// Creates a root directory without mounts.
pub(crate) fn create(root: &Path) {
    let mount_points =
        [contract::TRAINING_DIR, contract::DATA_DIR, contract::FILES_DIR, contract::CHECKPOINT_DIR];
    for directory in mount_points {
        fs::create_dir_all(root.join(directory.trim_start_matches('/'))).unwrap();
    }
    fs::create_dir(root.join(HOST)).unwrap();
    link_missing(Path::new("/"), root, Path::new(HOST));
    link_missing(Path::new("/etc"), &root.join("etc"), &Path::new("..").join(HOST).join("etc"));
}

/// Links the entries of a directory of the host that `directory` does not have. `target` leads from `directory` to the
/// mounted one.
fn link_missing(host: &Path, directory: &Path, target: &Path) {
    for name in fs::read_dir(host).unwrap().map(|entry| entry.unwrap().file_name()) {
        let link = directory.join(&name);
        if !link.exists() {
            symlink(target.join(&name), link).unwrap();
        }
    }
}

/// A shell script that mounts the directories of a container and runs a program in it. Its arguments: the root directory; the
/// directories with the training spec, the data set and the checkpoints; then those of `env`.
pub(crate) fn script() -> String {
    let (training, data) = (contract::TRAINING_DIR, contract::DATA_DIR);
    let checkpoints = contract::CHECKPOINT_DIR;
    format!(
        r#"set -e
        root=$1
        mount --rbind / "$root/{HOST}"
        mount --bind "$2" "$root{training}"
        mount --bind "$3" "$root{data}"
        mount --bind "$4" "$root{checkpoints}"
        shift 4
        exec chroot "$root" env "$@""#
    )
}
