//! Validation of additional files and of the network of a teacher. Pure.

use super::{InvalidTraining, check_rules, data::check_http, refuse};
use crate::training::{FileSource, Labels, Training, model, source as sources};

impl Training {
    pub(super) fn check_files(&self) -> Result<(), InvalidTraining> {
        self.files().into_iter().try_for_each(|(file, source)| {
            let field = file.field();
            match source {
                FileSource::Http(source) => check_http(&format!("{field}.http"), source),
                FileSource::Volume(source) => {
                    check_rules(&sources::VOLUME_FILE_RULES, source, &format!("{field}.volume."))
                }
            }
        })?;
        let labels = self.data.additional.as_ref().map(|additional| &additional.labels);
        let Some(Labels::Teacher(teacher)) = labels else { return Ok(()) };
        if teacher.model.initial_weights.is_some() {
            return refuse(
                "data.additional.labels.teacher.model.initialWeights",
                "unsupported for a teacher, whose weights are labels.teacher.weights; remove the field",
            );
        }
        check_rules(&model::RULES, &teacher.model, "data.additional.labels.teacher.model.")
    }
}
