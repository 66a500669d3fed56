//! Unpacks the files of a data set from an archive. [`dataset_files`] gives the target paths. Links within the archive become
//! files; other entries are skipped, and counted.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use datjob_api::{
    report::PreparationStep,
    training::{Dataset, HttpSource},
};
use flate2::read::MultiGzDecoder;
use tar::{Entry, EntryType};
use tempfile::NamedTempFile;

use super::{DownloadError, redacted_url, write_error};
use crate::{
    DownloadObserver, Tally,
    archive_path::{self, LinkKind},
    dataset_files, files, image_folder,
    skipped::SkippedFiles,
    storage,
};

/// Most links in an archive. ImageNet has 1.3 million images.
const MAX_LINKS: usize = 2_000_000;
/// Longest path of a link, in bytes.
const MAX_NAME: usize = 4096;
/// Most links that a link may lead over, as in Linux.
const MAX_HOPS: usize = 40;

/// Unpacks the files of the data set into `dir`; returns what was skipped.
pub(crate) fn unpack(
    archive: &File,
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
    observer: &dyn DownloadObserver,
) -> Result<SkippedFiles, DownloadError> {
    let mut unpacking = Unpacking {
        dataset,
        source,
        dir,
        observer,
        parents: HashMap::new(),
        links: BTreeMap::new(),
        copied: 0,
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
    observer: &'a dyn DownloadObserver,
    /// The parent folder in the archive of each subset (train, val, test) or standard file.
    parents: HashMap<PathBuf, String>,
    /// Links by their path in the archive.
    links: BTreeMap<String, Link>,
    /// Bytes that were copied for links, on file systems without hard links.
    copied: u64,
    skipped: SkippedFiles,
}

struct Link {
    /// The file of the data set, if the link is in its place.
    file: Option<PathBuf>,
    /// The path in the archive, or outside it, as it is written.
    written: String,
    /// The path in the archive; `None` if it is outside.
    points_to: Option<String>,
}

type ArchiveReader<'a> = io::Take<Box<dyn Read + 'a>>;

/// Reads the archive and reports how much of it was read.
struct ObservedArchive<'a> {
    file: File,
    read: u64,
    size: Option<u64>,
    observer: &'a dyn DownloadObserver,
}

impl Read for ObservedArchive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        self.observer.progress(PreparationStep::Unpacking, self.read, self.size);
        Ok(count)
    }
}

impl<'a> Unpacking<'a> {
    fn for_each_entry(
        &mut self,
        archive: &File,
        mut visit: impl FnMut(&mut Self, &mut Entry<'_, ArchiveReader<'a>>) -> Result<(), DownloadError>,
    ) -> Result<(), DownloadError> {
        let reader = open_archive(archive, self.observer).map_err(|error| self.invalid(error))?;
        let mut tar = tar::Archive::new(reader.take(dataset_files::archive_limit(self.dataset)));
        // Archives may be joined (`cat a.tar b.tar`): the end of the first is not the end of the file.
        tar.set_ignore_zeros(true);
        for entry in tar.entries().map_err(|error| self.invalid(error))? {
            visit(self, &mut entry.map_err(|error| self.invalid(error))?)?;
        }
        Ok(())
    }

    fn unpack_entry(&mut self, entry: &mut Entry<'_, ArchiveReader<'a>>) -> Result<(), DownloadError> {
        let kind = entry.header().entry_type();
        let bytes = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&bytes).into_owned();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            return Ok(());
        }
        let (url, name) = (self.url(), path.chars().take(MAX_NAME).collect());
        let refused = |problem| Err(DownloadError::Entry { url, entry: name, problem });
        let link = LinkKind::of(kind);
        if link == Some(LinkKind::Symbolic) && dataset_files::is_image_folder(self.dataset, &path) {
            return refused(
                "links to folders are not supported; replace them by folders (tar --dereference)",
            );
        }
        if dataset_files::is_outside_class_folder(self.dataset, &path) {
            return refused(image_folder::OUTSIDE_CLASS_FOLDER);
        }
        let file = dataset_files::target_path(self.dataset, &path);
        if let Some(file) = &file {
            if str::from_utf8(&bytes).is_err() {
                return refused("the name is not valid UTF-8; rename the file");
            }
            if dataset_files::is_unexpected_file(self.dataset, file) {
                return Err(DownloadError::UnexpectedFile {
                    url: self.url(),
                    file: file.display().to_string(),
                });
            }
        }
        let archive_path = archive_path::normalized(&path);
        if let Some(link) = link {
            let Some(archive_path) = archive_path else {
                return refused("the path leads out of the archive");
            };
            let written = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
            if self.links.len() == MAX_LINKS || written.len() > MAX_NAME || path.len() > MAX_NAME {
                return refused("too many links, or a link with too long a name");
            }
            if let Some(file) = &file {
                self.check_parent(&path, file)?;
            }
            let points_to = link.target(&path, &written);
            self.links.insert(archive_path, Link { file, written, points_to });
            return Ok(());
        }
        let Some(file) = file else {
            self.skipped.add(dataset_files::looks_like_data(self.dataset, &path), &path);
            return Ok(());
        };
        if !is_file(kind) {
            return refused("expected a file, found a device, a sparse file or another special entry");
        }
        self.check_parent(&path, &file)?;
        // The last entry of a path counts.
        if let Some(path) = archive_path {
            self.links.remove(&path);
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

    fn write_entry(
        &self,
        entry: &mut Entry<'_, ArchiveReader<'a>>,
        file: &Path,
    ) -> Result<(), DownloadError> {
        let (size, limit) = (entry.size(), dataset_files::file_limit(self.dataset));
        if size > limit {
            let (url, file) = (self.url(), file.display().to_string());
            return Err(DownloadError::FileTooLarge { url, file, size, limit });
        }
        let target = self.create_parent(file)?;
        let create = || NamedTempFile::new_in(self.dir);
        let mut out =
            storage::retry_on("create a file in", self.dir, create).map_err(write_error(self.dir))?;
        let mut block = vec![0; 1 << 16];
        loop {
            let count = entry.read(&mut block).map_err(|error| self.invalid(error))?;
            if count == 0 {
                break;
            }
            storage::write_all(out.as_file_mut(), &target, &block[..count]).map_err(write_error(&target))?;
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
            storage::retry_on("create", parent, || fs::create_dir_all(parent))
                .map_err(write_error(parent))?;
        }
        Ok(target)
    }

    /// Makes each link in the place of a file of the data set that file: a hard link to the unpacked file, or the content of
    /// an entry that was skipped.
    fn resolve_links(&mut self, archive: &File) -> Result<(), DownloadError> {
        let mut unresolved = Tally::default();
        let mut unpacked = Vec::new();
        // By the path of the entry that holds the content.
        let mut wanted: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for (path, link) in &self.links {
            let Some(file) = &link.file else { continue };
            match self.origin(link) {
                None => unresolved.add(format!("{path} -> {}", link.written)),
                Some(origin) => match self.unpacked_file(&origin) {
                    Some(existing) => unpacked.push((existing, file.clone())),
                    None => wanted.entry(origin).or_default().push(file.clone()),
                },
            }
        }
        for (existing, file) in unpacked {
            self.link(&existing, &file)?;
        }
        if !wanted.is_empty() {
            // Counted again, without the entries that links stand for.
            self.skipped = SkippedFiles::default();
            self.for_each_entry(archive, |unpacking, entry| {
                let kind = entry.header().entry_type();
                let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                if kind.is_dir() || kind.is_pax_global_extensions() || LinkKind::of(kind).is_some() {
                    return Ok(());
                }
                let content = archive_path::normalized(&path).filter(|_| is_file(kind));
                let files = content.and_then(|path| wanted.remove(&path)).unwrap_or_default();
                let Some((first, others)) = files.split_first() else {
                    if dataset_files::target_path(unpacking.dataset, &path).is_none() {
                        unpacking
                            .skipped
                            .add(dataset_files::looks_like_data(unpacking.dataset, &path), &path);
                    }
                    return Ok(());
                };
                unpacking.write_entry(entry, first)?;
                let first = unpacking.dir.join(first);
                others.iter().try_for_each(|file| unpacking.link(&first, file))
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

    /// The unpacked file of an entry of the data set.
    fn unpacked_file(&self, archive_path: &str) -> Option<PathBuf> {
        let file = dataset_files::target_path(self.dataset, archive_path)?;
        let parent = self.parents.get(&file.iter().take(1).collect::<PathBuf>())?;
        // A path in another folder has the same target, but is another entry.
        let is_entry = archive_path::normalized(&format!("{parent}{}", file.display()))? == archive_path;
        Some(self.dir.join(file)).filter(|path| is_entry && path.is_file())
    }

    /// The path of the entry that a link leads to, over other links; `None` if it leaves the archive or is a circle.
    fn origin(&self, link: &Link) -> Option<String> {
        let mut path = link.points_to.as_ref()?;
        for _ in 0..MAX_HOPS {
            match self.links.get(path) {
                Some(next) => path = next.points_to.as_ref()?,
                None => return Some(path.clone()),
            }
        }
        None
    }

    fn link(&mut self, existing: &Path, file: &Path) -> Result<(), DownloadError> {
        let target = self.create_parent(file)?;
        files::remove_if_exists(&target).map_err(|error| write_error(&target)(io::Error::other(error)))?;
        if fs::hard_link(existing, &target).is_ok() {
            return Ok(());
        }
        let limit = dataset_files::archive_limit(self.dataset);
        self.copied += storage::retry_on("write", &target, || fs::copy(existing, &target))
            .map_err(write_error(&target))?;
        if self.copied > limit {
            return Err(DownloadError::TooLarge { url: self.url(), limit });
        }
        Ok(())
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
    kind.is_file() || kind.is_contiguous()
}

/// A reader of the archive from its start; decompresses gzip, which is detected by its magic number.
fn open_archive<'a>(file: &File, observer: &'a dyn DownloadObserver) -> io::Result<Box<dyn Read + 'a>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut magic = [0; 2];
    let gzipped = match file.read_exact(&mut magic) {
        Ok(()) => magic == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    let size = file.metadata().ok().map(|file| file.len());
    let file = BufReader::with_capacity(1 << 16, ObservedArchive { file, read: 0, size, observer });
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
