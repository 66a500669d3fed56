//! Validation of additional files and of additional images. Pure.

use super::{InvalidTraining, data::check_http, refuse};
use crate::training::{FileSource, Labels, Objective, Training, VolumeFile};

impl Training {
    pub(super) fn check_files(&self) -> Result<(), InvalidTraining> {
        self.files().into_iter().try_for_each(|(file, source)| {
            let field = file.field();
            match source {
                FileSource::Http(source) => check_http(&format!("{field}.http"), source),
                FileSource::Volume(VolumeFile { path, .. })
                    if path.is_empty()
                        || path.starts_with('/')
                        || path.split('/').any(|part| part == "..") =>
                {
                    refuse(
                        &format!("{field}.volume.path"),
                        &format!(
                            "invalid path {path:?}; expected a file path relative to the volume's root, without \"..\""
                        ),
                    )
                }
                FileSource::Volume(_) => Ok(()),
            }
        })
    }

    pub(super) fn check_additional(&self) -> Result<(), InvalidTraining> {
        let Some(additional) = &self.data.additional else { return Ok(()) };
        if self.data.dataset.is_encoded() {
            return refuse(
                "data.additional",
                "unsupported with image-folder and webdataset; add the images to the folders or shards of the data set",
            );
        }
        let batch = self.schedule.batch_size;
        if batch < 2 || (f64::from(batch) * additional.per_batch).round() < 1.0 {
            let fraction = additional.per_batch;
            let problem = format!(
                "perBatch × batchSize ({fraction} × {batch}) gives zero additional images; increase perBatch or batchSize"
            );
            return refuse("data.additional.perBatch", &problem);
        }
        match &additional.labels {
            Labels::None(_) if !matches!(self.objective, Objective::Trades(_)) => refuse(
                "data.additional.labels",
                "labels.none requires objective.trades; use objective.trades or labels.teacher",
            ),
            Labels::None(_) if self.data.augmentation.cut_mix.is_some() => refuse(
                "data.additional.labels",
                "labels.none cannot be combined with data.augmentation.cutMix, which mixes labels; remove cutMix, or use \
                 labels.teacher",
            ),
            Labels::Teacher(teacher) if teacher.model.initial_weights.is_some() => refuse(
                "data.additional.labels.teacher.model.initialWeights",
                "unsupported for a teacher, whose weights are labels.teacher.weights; remove the field",
            ),
            Labels::Teacher(teacher) if !teacher.model.supports_stem() => refuse(
                "data.additional.labels.teacher.model.stem",
                &format!("{} supports only the default stem; remove the field", teacher.model.architecture),
            ),
            _ => Ok(()),
        }
    }
}
