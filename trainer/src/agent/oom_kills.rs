//! How many processes of this cgroup the kernel has killed because memory ran out. Only this count distinguishes such a kill
//! from another SIGKILL.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The number of kills so far; `None` if the kernel or the container hides it.
pub(super) fn count() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    candidates(&membership, Path::new("/sys/fs/cgroup"))
        .iter()
        .find_map(|file| parse(&fs::read_to_string(file).ok()?))
}

/// The files that may have the count, by what `/proc/self/cgroup` says: those of version 2 and of version 1, below the path of
/// the cgroup or, in a container, at the root.
fn candidates(membership: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.extend([path, ""].map(|path| root.join(path).join("memory.events")));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            files.extend([path, ""].map(|path| root.join("memory").join(path).join("memory.oom_control")));
        }
    }
    files
}

/// The count in such a file: the line `oom_kill N`.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_that_of_kills() {
        assert_eq!(parse("low 0\nhigh 0\nmax 812\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None, "a kernel before 4.13");
    }

    #[test]
    fn the_file_is_that_of_the_own_cgroup() {
        let root = Path::new("/c");
        let version_2 = candidates("0::/user.slice/run-7.scope\n", root);
        assert_eq!(
            version_2,
            ["/c/user.slice/run-7.scope/memory.events", "/c/memory.events"].map(PathBuf::from)
        );
        let version_1 = candidates("5:cpu,cpuacct:/a\n4:memory:/kubepods/pod1\n", root);
        let expected = ["/c/memory/kubepods/pod1/memory.oom_control", "/c/memory/memory.oom_control"];
        assert_eq!(version_1, expected.map(PathBuf::from));
        assert_eq!(candidates("garbage\n", root), Vec::<PathBuf>::new());
    }
}
