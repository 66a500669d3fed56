use std::{
    fs,
    path::{Path, PathBuf},
};

/// What `parts` finds in `dir`, or else in the only folder below it: archives often hold all in one folder.
pub(super) fn find<T>(dir: &Path, parts: impl Fn(&Path) -> Option<T>) -> Option<T> {
    parts(dir).or_else(|| parts(&only_folder(dir)?))
}

fn only_folder(dir: &Path) -> Option<PathBuf> {
    let visible = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    };
    let mut folders = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(visible);
    // lost+found is the file system's own, at the root of a volume.
    let mut folders = folders.by_ref().filter(|path| !path.ends_with("lost+found"));
    folders.next().filter(|_| folders.next().is_none())
}
