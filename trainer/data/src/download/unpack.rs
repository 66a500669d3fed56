//! Unpacks the files of a data set from an archive. [`dataset_files`] gives the target paths. Links within the archive become
//! files; other entries are skipped, and counted.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use datjob_api::training::{Dataset, HttpSource};
use flate2::read::MultiGzDecoder;
use tar::{Entry, EntryType};
use tempfile::NamedTempFile;

use super::{DownloadError, redacted_url, write_error};
use crate::{
    Tally,
    archive_path::{self, LinkKind},
    dataset_files, files,
    skipped::SkippedFiles,
};

/// Unpacks the files of the data set into `dir`; returns what was skipped.
pub(crate) fn unpack(
    archive: &File,
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
) -> Result<SkippedFiles, DownloadError> {
    let mut unpacking = Unpacking {
        dataset,
        source,
        dir,
        parents: HashMap::new(),
        links: BTreeMap::new(),
        skipped: SkippedFiles::default(),
    };
    unpacking.for_each_entry(archive, Unpacking::unpack_entry)?;
    unpacking.resolve_links(archive)?;
    Ok(unpacking.skipped)
}

/// An archive that is being unpacked.
struct Unpacking<'a> {
    dataset: Dataset,
    source: &'a HttpSource,
    dir: &'a Path,
    /// The parent folder in the archive of each subset (train, val, test) or standard file.
    parents: HashMap<PathBuf, String>,
    /// Links in the place of files of the data set, by their path in the archive.
    links: BTreeMap<String, Link>,
    skipped: SkippedFiles,
}

struct Link {
    /// The file of the data set.
    file: PathBuf,
    /// The path in the archive, or outside it, as it is written.
    written: String,
    /// The path in the archive; `None` if it is outside.
    points_to: Option<String>,
}

type ArchiveReader = io::Take<Box<dyn Read>>;

impl Unpacking<'_> {
    fn for_each_entry(
        &mut self,
        archive: &File,
        mut visit: impl FnMut(&mut Self, &mut Entry<'_, ArchiveReader>) -> Result<(), DownloadError>,
    ) -> Result<(), DownloadError> {
        let reader = open_archive(archive).map_err(|error| self.invalid(error))?;
        let mut tar = tar::Archive::new(reader.take(dataset_files::archive_limit(self.dataset)));
        for entry in tar.entries().map_err(|error| self.invalid(error))? {
            visit(self, &mut entry.map_err(|error| self.invalid(error))?)?;
        }
        Ok(())
    }

    fn unpack_entry(&mut self, entry: &mut Entry<'_, ArchiveReader>) -> Result<(), DownloadError> {
        let kind = entry.header().entry_type();
        let bytes = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&bytes).into_owned();
        let (url, entry_path) = (self.url(), path.clone());
        let refused = |problem| Err(DownloadError::Entry { url, entry: entry_path, problem });
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(());
        }
        let link = LinkKind::of(kind);
        if link.is_some() && dataset_files::is_image_folder(self.dataset, &path) {
            return refused(
                "links to folders are not supported; replace them by folders (tar --dereference)",
            );
        }
        let Some(file) = dataset_files::target_path(self.dataset, &path) else {
            self.skipped.add(dataset_files::looks_like_data(self.dataset, &path), &path);
            return Ok(());
        };
        if str::from_utf8(&bytes).is_err() {
            return refused("the name is not valid UTF-8; rename the file");
        }
        if dataset_files::is_unexpected_file(self.dataset, &file) {
            return Err(DownloadError::UnexpectedFile { url: self.url(), file: file.display().to_string() });
        }
        self.check_parent(&path, &file)?;
        if let Some(link) = link {
            let written = entry.link_name_bytes().unwrap_or_default();
            let written = String::from_utf8_lossy(&written).into_owned();
            let points_to = link.target(&path, &written);
            if let Some(path) = archive_path::normalized(&path) {
                self.links.insert(path, Link { file, written, points_to });
            }
            return Ok(());
        }
        if !is_file(kind) {
            return refused("expected a file, found a device or another special entry");
        }
        self.write_entry(entry, &file)
    }

    /// The subsets of a data set have one parent folder each; several would be several data sets.
    fn check_parent(&mut self, path: &str, file: &Path) -> Result<(), DownloadError> {
        let part: PathBuf = file.iter().take(1).collect();
        let parent = file.to_str().and_then(|file| path.strip_suffix(file)).unwrap_or_default();
        let first = self.parents.entry(part.clone()).or_insert_with(|| parent.to_owned());
        if first == parent {
            return Ok(());
        }
        let (part, first, second) = (part.display().to_string(), first.clone(), parent.to_owned());
        Err(DownloadError::DuplicatePart { url: self.url(), part, first, second })
    }

    fn write_entry(&self, entry: &mut Entry<'_, ArchiveReader>, file: &Path) -> Result<(), DownloadError> {
        let (size, limit) = (entry.size(), dataset_files::file_limit(self.dataset));
        if size > limit {
            let (url, file) = (self.url(), file.display().to_string());
            return Err(DownloadError::FileTooLarge { url, file, size, limit });
        }
        let target = self.create_parent(file)?;
        let mut out = NamedTempFile::new_in(self.dir).map_err(write_error(self.dir))?;
        let mut block = vec![0; 1 << 16];
        loop {
            let count = entry.read(&mut block).map_err(|error| self.invalid(error))?;
            if count == 0 {
                break;
            }
            out.write_all(&block[..count]).map_err(write_error(&target))?;
        }
        out.persist(&target).map_err(|error| write_error(&target)(error.error))?;
        if !self.dataset.is_encoded() {
            remove_other_variant(&target);
        }
        Ok(())
    }

    fn create_parent(&self, file: &Path) -> Result<PathBuf, DownloadError> {
        let target = self.dir.join(file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(write_error(parent))?;
        }
        Ok(target)
    }

    /// Makes each link a file: a hard link to the unpacked file, or the content of an entry that was skipped.
    fn resolve_links(&mut self, archive: &File) -> Result<(), DownloadError> {
        let mut unresolved = Tally::default();
        // By the path of the entry that holds the content.
        let mut wanted: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for (path, link) in &self.links {
            let Some(origin) = self.origin(link) else {
                unresolved.add(format!("{path} -> {}", link.written));
                continue;
            };
            match dataset_files::target_path(self.dataset, &origin).map(|file| self.dir.join(file)) {
                Some(unpacked) if unpacked.is_file() => self.link(&unpacked, &link.file)?,
                _ => wanted.entry(origin).or_default().push(link.file.clone()),
            }
        }
        if !wanted.is_empty() {
            self.for_each_entry(archive, |unpacking, entry| {
                let path = archive_path::normalized(&String::from_utf8_lossy(&entry.path_bytes()));
                let path = path.filter(|_| is_file(entry.header().entry_type()));
                let files = path.and_then(|path| wanted.remove(&path)).unwrap_or_default();
                let [first, others @ ..] = &files[..] else { return Ok(()) };
                unpacking.write_entry(entry, first)?;
                others.iter().try_for_each(|file| unpacking.link(&unpacking.dir.join(first), file))
            })?;
        }
        for (origin, files) in wanted {
            for file in files {
                unresolved.add(format!("{} -> {origin}", file.display()));
            }
        }
        if unresolved.is_empty() {
            return Ok(());
        }
        Err(DownloadError::Links { url: self.url(), links: unresolved })
    }

    /// The path of the entry that a link leads to, over other links; `None` if it leaves the archive or is a circle.
    fn origin(&self, link: &Link) -> Option<String> {
        let mut path = link.points_to.as_ref()?;
        for _ in 0..=self.links.len() {
            match self.links.get(path) {
                Some(next) => path = next.points_to.as_ref()?,
                None => return Some(path.clone()),
            }
        }
        None
    }

    fn link(&self, existing: &Path, file: &Path) -> Result<(), DownloadError> {
        let target = self.create_parent(file)?;
        files::remove_if_exists(&target).map_err(|error| write_error(&target)(io::Error::other(error)))?;
        fs::hard_link(existing, &target)
            .or_else(|_| fs::copy(existing, &target).map(drop))
            .map_err(write_error(&target))
    }

    fn url(&self) -> String {
        redacted_url(self.source)
    }

    fn invalid(&self, source: io::Error) -> DownloadError {
        DownloadError::Archive { url: self.url(), source }
    }
}

/// Whether an entry has a file's content.
fn is_file(kind: EntryType) -> bool {
    kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()
}

/// A reader of the archive from its start; decompresses gzip, which is detected by its magic number.
fn open_archive(file: &File) -> io::Result<Box<dyn Read>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut magic = [0; 2];
    let gzipped = match file.read_exact(&mut magic) {
        Ok(()) => magic == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    let file = BufReader::with_capacity(1 << 16, file);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Removes an older gzipped or plain variant of the file, which could be read instead.
fn remove_other_variant(target: &Path) {
    let other = if files::is_gzipped(target) {
        target.with_extension("")
    } else {
        PathBuf::from(format!("{}.gz", target.display()))
    };
    // It usually does not exist.
    let _ = fs::remove_file(other);
}
