//! Paths in an archive, and where its links point. Pure.

use tar::EntryType;

/// The kind of a link, which decides how its target is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// The target is written from the root of the archive.
    Hard,
    /// The target is written from the folder of the link.
    Symbolic,
}

impl LinkKind {
    /// The kind of an entry, if it is a link.
    pub(crate) fn of(entry: EntryType) -> Option<Self> {
        match entry {
            EntryType::Link => Some(Self::Hard),
            EntryType::Symlink => Some(Self::Symbolic),
            _ => None,
        }
    }

    /// The path in the archive to which a link points; `None` if it is outside.
    pub(crate) fn target(self, link: &str, written: &str) -> Option<String> {
        match self {
            Self::Hard => normalized(written),
            Self::Symbolic if written.starts_with('/') => None,
            Self::Symbolic => {
                let folder = link.rfind('/').map_or("", |slash| &link[..slash]);
                normalized(&format!("{folder}/{written}"))
            }
        }
    }
}

/// A path without empty parts, `.` and `..`; `None` if it is outside the archive or empty.
pub(crate) fn normalized(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_from_the_root_of_the_archive() {
        for (path, expected) in [
            ("./a//b/../c.jpg", Some("a/c.jpg")),
            ("/a", Some("a")),
            ("a/../..", None),
            ("..", None),
            ("./", None),
        ] {
            assert_eq!(normalized(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn links_point_from_the_root_or_from_their_folder() {
        let target = |kind: LinkKind, written| kind.target("./x/train/a/1.jpg", written);
        assert_eq!(target(LinkKind::Hard, "./x/train/b/2.jpg").as_deref(), Some("x/train/b/2.jpg"));
        assert_eq!(target(LinkKind::Symbolic, "../b/2.jpg").as_deref(), Some("x/train/b/2.jpg"));
        assert_eq!(target(LinkKind::Symbolic, "/x/train/b/2.jpg"), None);
        assert_eq!(target(LinkKind::Symbolic, "../../../../2.jpg"), None);
    }
}
