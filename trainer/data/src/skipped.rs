//! Files of a source that are not part of its data set.

use datjob_api::training::Dataset;

use crate::Tally;

/// The files that were skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SkippedFiles {
    /// Documentation, metadata and hidden files.
    others: Tally,
    /// Files that look like images or shards, in places where the data set has none.
    possible_data: Tally,
}

impl SkippedFiles {
    /// Counts a file that is skipped.
    pub(crate) fn add(&mut self, may_be_data: bool, path: &str) {
        if may_be_data {
            self.possible_data.add(path);
        } else {
            self.others.add(path);
        }
    }

    /// Adds what another part of the source skipped.
    pub(crate) fn append(&mut self, other: Self) {
        self.others.append(other.others);
        self.possible_data.append(other.possible_data);
    }

    /// Logs what was skipped, and returns a sentence for the user if it may be data.
    pub(crate) fn report(self, dataset: Dataset, layout: &str) -> Option<String> {
        let Self { others, possible_data } = self;
        if !others.is_empty() {
            let (count, dataset) = (others.count(), dataset.name());
            tracing::info!(count, dataset, first = %others, "Skipped files that are not part of the data set.");
        }
        (!possible_data.is_empty()).then(|| {
            let (count, dataset) = (possible_data.count(), dataset.name());
            let what = if count == 1 { "file or folder" } else { "files or folders" };
            format!(
                "spec.training.data.source: skipped {count} {what} that may be data ({dataset} only has {layout}): \
                 {possible_data}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_files_that_may_be_data_only() {
        let mut skipped = SkippedFiles::default();
        skipped.add(false, "README.md");
        assert_eq!(skipped.clone().report(Dataset::ImageFolder, "images"), None);
        skipped.add(true, "extra/a/1.jpg");
        let warning = skipped.report(Dataset::ImageFolder, "images").unwrap();
        assert!(
            warning.starts_with("spec.training.data.source: skipped 1 file or folder that may be data"),
            "{warning}"
        );
        assert!(warning.ends_with("(image-folder only has images): extra/a/1.jpg"), "{warning}");
    }
}
