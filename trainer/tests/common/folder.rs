//! Folders for the data that tests make.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// An empty folder of that name, where cargo wants such files, or else among the temporary ones. The next run of the same
/// tests takes it again, so that not more and more of them are left.
pub(crate) fn anew(name: &str) -> PathBuf {
    let place = Some(Path::new(env!("CARGO_TARGET_TMPDIR"))).filter(|place| place.is_dir());
    let place = place.map_or_else(env::temp_dir, Path::to_owned);
    let folder = place.join(format!("{}-{name}", env!("CARGO_CRATE_NAME")));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
