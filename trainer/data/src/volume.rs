//! Paths on the volume of a PersistentVolumeClaim.
//!
//! The operator mounts the whole volume, read-only, instead of the path: the kubelet would create a missing path on the
//! volume, and the training would find an empty directory.

use std::{
    fmt,
    fs::{self, Metadata},
    io::{self, ErrorKind},
    path::Path,
};

use crate::files::advice;

/// What a path must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::File => "file",
        })
    }
}

/// A path on a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumePathError {
    /// Nothing is there.
    #[error(
        "{kind} {path:?} not found on the volume of PersistentVolumeClaim {claim:?}; correct the path, or copy the {kind} to \
         the volume"
    )]
    NotFound {
        /// What was expected.
        kind: PathKind,
        /// The path.
        path: String,
        /// The claim.
        claim: String,
    },
    /// The path is of another kind.
    #[error("{path:?} on the volume of PersistentVolumeClaim {claim:?} is not a {kind}; correct the path")]
    WrongKind {
        /// What was expected.
        kind: PathKind,
        /// The path.
        path: String,
        /// The claim.
        claim: String,
    },
    /// A symbolic link leads to another file system.
    #[error(
        "{path:?} on the volume of PersistentVolumeClaim {claim:?} is a symbolic link that leaves the volume; use a path \
         without such links"
    )]
    Outside {
        /// The path.
        path: String,
        /// The claim.
        claim: String,
    },
    /// The path cannot be resolved.
    #[error(
        "cannot open {path:?} on the volume of PersistentVolumeClaim {claim:?}: {error}{}",
        advice(error)
    )]
    Open {
        /// The path.
        path: String,
        /// The claim.
        claim: String,
        /// The cause.
        #[source]
        error: io::Error,
    },
}

/// Checks that `path` exists on the volume of `claim`, which is mounted at `mount`, and does not leave it.
pub fn check_path(mount: &Path, claim: &str, path: &str, kind: PathKind) -> Result<(), VolumePathError> {
    let is_kind = |metadata: &Metadata| match kind {
        PathKind::Directory => metadata.is_dir(),
        PathKind::File => metadata.is_file(),
    };
    let found = resolve(mount, path);
    let (path, claim) = (path.to_owned(), claim.to_owned());
    match found {
        Ok(Some(metadata)) if is_kind(&metadata) => Ok(()),
        Ok(Some(_)) => Err(VolumePathError::WrongKind { kind, path, claim }),
        Ok(None) => Err(VolumePathError::Outside { path, claim }),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(VolumePathError::NotFound { kind, path, claim })
        }
        Err(error) => Err(VolumePathError::Open { path, claim, error }),
    }
}

/// What `path` leads to; `None` if that is outside of `mount`.
fn resolve(mount: &Path, path: &str) -> io::Result<Option<Metadata>> {
    let mount = fs::canonicalize(mount)?;
    let target = fs::canonicalize(mount.join(path))?;
    target.starts_with(&mount).then(|| fs::metadata(&target)).transpose()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn accepts_directories_files_and_links_on_the_volume() {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir_all(volume.path().join("sets/cifar10")).unwrap();
        fs::write(volume.path().join("sets/w.pt"), "w").unwrap();
        symlink("sets/cifar10", volume.path().join("link")).unwrap();
        for (path, kind) in [
            ("", PathKind::Directory),
            ("sets/cifar10", PathKind::Directory),
            ("link", PathKind::Directory),
            ("sets/w.pt", PathKind::File),
        ] {
            check_path(volume.path(), "datasets", path, kind).unwrap();
        }
    }

    #[test]
    fn refusals_name_the_claim_and_the_path() {
        let volume = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(volume.path().join("directory")).unwrap();
        fs::write(volume.path().join("file"), "").unwrap();
        symlink(outside.path(), volume.path().join("absolute")).unwrap();
        symlink("../..", volume.path().join("directory/above")).unwrap();
        symlink("nowhere", volume.path().join("broken")).unwrap();
        for (path, kind, expected) in [
            ("cifar", PathKind::Directory, "directory \"cifar\" not found on the volume"),
            ("a/b.pt", PathKind::File, "file \"a/b.pt\" not found on the volume"),
            ("file/x", PathKind::Directory, "directory \"file/x\" not found on the volume"),
            ("broken", PathKind::Directory, "directory \"broken\" not found on the volume"),
            ("file", PathKind::Directory, "\"file\" on the volume"),
            ("directory", PathKind::File, "\"directory\" on the volume"),
            ("absolute", PathKind::Directory, "symbolic link that leaves the volume"),
            ("directory/above", PathKind::Directory, "symbolic link that leaves the volume"),
            ("..", PathKind::Directory, "leaves the volume"),
        ] {
            let sentence = check_path(volume.path(), "datasets", path, kind).unwrap_err().to_string();
            assert!(sentence.contains(expected), "{path}: {sentence}");
            assert!(sentence.contains("PersistentVolumeClaim \"datasets\""), "{sentence}");
        }
        assert!(!volume.path().join("cifar").exists(), "nothing is created on the volume");
    }
}
