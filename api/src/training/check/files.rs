//! What the files beside the data set must satisfy, and the images in one of them.

use super::{InvalidTraining, data::check_http, number, refuse};
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
                            "{path:?} must be the path of a file below the volume's root, without \"..\""
                        ),
                    )
                }
                FileSource::Volume(_) => Ok(()),
            }
        })
    }

    pub(super) fn check_additional(&self) -> Result<(), InvalidTraining> {
        let Some(additional) = &self.data.additional else { return Ok(()) };
        number("data.additional.perBatch", additional.per_batch, 0.01, 0.95)?;
        if self.data.dataset.is_encoded() {
            return refuse(
                "data.additional",
                "goes with the data sets that lie in memory, not with image-folder and webdataset: put the images into \
                 their folders or shards",
            );
        }
        let batch = self.schedule.batch_size;
        if batch < 2 || (f64::from(batch) * additional.per_batch).round() < 1.0 {
            let share = additional.per_batch;
            let problem = format!(
                "a share of {share} of a batch of {batch} is no image; raise it or schedule.batchSize"
            );
            return refuse("data.additional.perBatch", &problem);
        }
        match &additional.labels {
            Labels::None(_) if !matches!(self.objective, Objective::Trades(_)) => refuse(
                "data.additional.labels",
                "without labels only the divergence of objective.trades can be learned; write objective.trades, or \
                 labels.teacher",
            ),
            Labels::None(_) if self.data.augmentation.cut_mix.is_some() => refuse(
                "data.additional.labels",
                "CutMix mixes labels, and there are none; leave data.augmentation.cutMix out, or write labels.teacher",
            ),
            Labels::Teacher(teacher) if teacher.model.initial_weights.is_some() => refuse(
                "data.additional.labels.teacher.model.initialWeights",
                "the teacher's weights are labels.teacher.weights; leave it out",
            ),
            Labels::Teacher(teacher) if !teacher.model.stem_fits() => refuse(
                "data.additional.labels.teacher.model.stem",
                &format!("{} has one form only; leave it out", teacher.model.architecture),
            ),
            _ => Ok(()),
        }
    }
}
