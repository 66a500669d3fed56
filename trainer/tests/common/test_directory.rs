//! Directories for the data that tests generate.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Creates an empty directory in cargo's directory for test files, or in the system's if cargo's does not exist. The next
/// run of the same test program replaces it, so that directories do not accumulate.
pub(crate) fn empty_directory(name: &str) -> PathBuf {
    let parent = Some(Path::new(env!("CARGO_TARGET_TMPDIR"))).filter(|parent| parent.is_dir());
    let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
    let directory = parent.join(format!("{}-{name}", env!("CARGO_CRATE_NAME")));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}
