//! Lists the objects of a data set in a bucket, with their checksums.

use std::{collections::BTreeMap, path::PathBuf};

use datjob_api::training::Dataset;
use futures::StreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as Location};

use super::{Bucket, DatasetObject};
use crate::{
    dataset_files, image_folder,
    objects::{ObjectsError, checksums::Checksums},
    skipped::SkippedFiles,
};

/// Maximum number of objects of a data set. ImageNet has 1.3 million images.
const MAX_OBJECTS: usize = 20_000_000;
/// Maximum size of `SHA256SUMS` in bytes.
const MAX_CHECKSUMS_BYTES: u64 = 2 << 30;
/// The name of the object with the checksums.
const CHECKSUMS_NAME: &str = "SHA256SUMS";

impl Bucket {
    /// Lists the objects of the data set with their checksums, and counts the others.
    pub(in crate::objects) async fn list_objects(
        &self,
        dataset: Dataset,
    ) -> Result<(Vec<DatasetObject>, SkippedFiles), ObjectsError> {
        let mut listing = self.store.list(Some(&self.prefix));
        let mut checksums = Checksums::default();
        let mut skipped = SkippedFiles::default();
        let mut objects: BTreeMap<String, DatasetObject> = BTreeMap::new();
        let mut targets: BTreeMap<PathBuf, String> = BTreeMap::new();
        while let Some(meta) = listing.next().await {
            let meta = meta.map_err(|error| self.store_error(&self.prefix, error))?;
            let Some(name) = self.relative_name(&meta.location) else { continue };
            if name == CHECKSUMS_NAME {
                checksums = self.read_checksums(&meta).await?;
                continue;
            }
            let invalid_object = |problem| ObjectsError::Object { url: self.url(&meta.location), problem };
            if dataset_files::is_outside_class_folder(dataset, &name) {
                return Err(invalid_object(image_folder::OUTSIDE_CLASS_FOLDER.to_owned()));
            }
            let Some(target) = dataset_files::target_path(dataset, &name) else {
                // Consoles create empty objects as folders.
                if meta.size > 0 {
                    skipped.add(dataset_files::looks_like_data(dataset, &name), &name);
                }
                continue;
            };
            if dataset_files::is_unexpected_file(dataset, &target) {
                return Err(invalid_object(image_folder::UNEXPECTED_FILE.to_owned()));
            }
            let limit = dataset_files::file_limit(dataset);
            if meta.size > limit {
                return Err(invalid_object(format!(
                    "too large: {} bytes; must be at most {limit}",
                    meta.size
                )));
            }
            if let Some(other) = targets.insert(target.clone(), name.clone()) {
                let path = target.display();
                return Err(invalid_object(format!(
                    "duplicate of {other}; both are the file {path} of the data set"
                )));
            }
            if objects.len() == MAX_OBJECTS {
                return Err(invalid_object(format!(
                    "too many objects: a data set has at most {MAX_OBJECTS}"
                )));
            }
            let ObjectMeta { location, size, e_tag, .. } = meta;
            objects.insert(name, DatasetObject { location, size, e_tag, target, sha256: None });
        }
        for name in checksums.names().filter(|name| dataset_files::target_path(dataset, name).is_some()) {
            let Some(object) = objects.get_mut(name) else {
                let problem = format!("the listed object {name} does not exist");
                return Err(ObjectsError::Checksums {
                    url: self.url(&self.prefix.clone().join(CHECKSUMS_NAME)),
                    problem,
                });
            };
            object.sha256 = checksums.get(name).map(str::to_owned);
        }
        Ok((objects.into_values().collect(), skipped))
    }

    /// The path of an object relative to the prefix.
    fn relative_name(&self, object: &Location) -> Option<String> {
        let parts: Vec<_> = object.prefix_match(&self.prefix)?.collect();
        Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
    }

    async fn read_checksums(&self, meta: &ObjectMeta) -> Result<Checksums, ObjectsError> {
        let invalid = |problem| ObjectsError::Checksums { url: self.url(&meta.location), problem };
        if meta.size > MAX_CHECKSUMS_BYTES {
            return Err(invalid(format!(
                "too large: {} bytes; must be at most {MAX_CHECKSUMS_BYTES}",
                meta.size
            )));
        }
        let store_error = |error| self.store_error(&meta.location, error);
        let bytes = self.store.get_range(&meta.location, 0..meta.size.max(1)).await.map_err(store_error)?;
        Checksums::parse(&bytes).map_err(invalid)
    }
}
