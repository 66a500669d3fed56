//! Validation of `data.source`, and of fields that depend on the numbers of images and classes. Pure.

use super::{InvalidTraining, check_at_most, check_rules, refuse};
use crate::training::{Contents, FinalAttack, HttpSource, ObjectStoreSource, Source, Training, source};

impl Training {
    pub(super) fn check_source(&self) -> Result<(), InvalidTraining> {
        match &self.data.source {
            Source::Volume(volume) => check_rules(&source::VOLUME_RULES, volume, "data.source.volume."),
            Source::Http(http) => check_http("data.source.http", http),
            Source::ObjectStore(store) => check_object_store(store),
            Source::Image(_) => Ok(()),
        }
    }

    /// Checks fields that depend on the numbers of images and classes. The trainer calls it for the user's files.
    pub fn check_contents(&self, contents: &Contents, world_size: u32) -> Result<(), InvalidTraining> {
        let batch = self.schedule.batch_size;
        let held_out = self.data.validation.count;
        // Each rank needs an image.
        let most = contents.training_images.saturating_sub(world_size.max(1) as usize);
        check_at_most(
            "data.validation.count",
            held_out,
            u32::try_from(most).unwrap_or(u32::MAX),
            "the number of training images, less one for each rank",
        )?;
        let training = contents.training_images.saturating_sub(held_out as usize);
        let smallest = training / training.div_ceil(batch as usize).max(1);
        if smallest < world_size as usize {
            return refuse(
                "schedule.batchSize",
                &format!(
                    "the smallest step of an epoch has size {smallest}, less than the world size {world_size} (training \
                     images: {training}, batchSize: {batch}); increase batchSize, or use fewer ranks"
                ),
            );
        }
        if let Some(certify) = &self.evaluation.certify {
            let images = u32::try_from(contents.test_images).unwrap_or(u32::MAX);
            check_at_most("evaluation.certify.images", certify.images, images, "the number of test images")?;
        }
        self.evaluation
            .final_
            .iter()
            .enumerate()
            .try_for_each(|(index, attack)| check_classes(index, attack, contents.classes))
    }
}

/// Checks that the data set has enough classes for an attack of `evaluation.final`.
fn check_classes(index: usize, attack: &FinalAttack, classes: i64) -> Result<(), InvalidTraining> {
    let field = format!("evaluation.final[{index}]");
    let (uses_apgd_t, targets) = match attack {
        FinalAttack::ApgdT(targeted) => (true, Some(("apgdT", targeted.targets()))),
        FinalAttack::AutoAttack(_) => (true, None),
        FinalAttack::FabT(targeted) => (false, Some(("fabT", targeted.targets()))),
        FinalAttack::Pgd(_) | FinalAttack::Cw(_) | FinalAttack::ApgdCe(_) | FinalAttack::Square(_) => {
            (false, None)
        }
    };
    if uses_apgd_t && classes < 4 {
        let problem = format!(
            "apgdT, a component of autoAttack, requires at least 4 classes, and the data set has {classes}; use pgd, \
             apgdCe, cw, fabT or square"
        );
        return refuse(&field, &problem);
    }
    let Some((method, targets)) = targets else { return Ok(()) };
    let others = u32::try_from(classes).unwrap_or(u32::MAX).saturating_sub(1);
    check_at_most(&format!("{field}.{method}.targets"), targets, others, "the number of classes, less one")
}

/// The URL itself is not printed: conditions and logs have more readers than the job.
const HAS_CREDENTIALS: &str =
    "must not contain a user or a password, because everyone who can read the job can read it";

pub(super) fn check_http(field: &str, http: &HttpSource) -> Result<(), InvalidTraining> {
    check_url(&format!("{field}.url"), &http.url)?;
    if http.sha256.len() != 64 || !http.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return refuse(
            &format!("{field}.sha256"),
            "invalid SHA-256; expected 64 lower-case hexadecimal digits",
        );
    }
    Ok(())
}

fn check_object_store(store: &ObjectStoreSource) -> Result<(), InvalidTraining> {
    let field = |name: &str| format!("data.source.objectStore.{name}");
    if store.bucket_and_prefix().is_none() {
        // A secret key may contain a slash, so the "@" may follow one.
        if store.url.contains('@') {
            return refuse(&field("url"), HAS_CREDENTIALS);
        }
        let problem = format!("invalid S3 URL {:?}; expected s3://bucket/prefix", store.url);
        return refuse(&field("url"), &problem);
    }
    store.endpoint.as_deref().map_or(Ok(()), |endpoint| check_url(&field("endpoint"), endpoint))
}

fn check_url(field: &str, url: &str) -> Result<(), InvalidTraining> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return refuse(field, "must start with http:// or https://");
    };
    if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
        return refuse(field, HAS_CREDENTIALS);
    }
    Ok(())
}
