//! What `data` must satisfy, and what the numbers of a data set's images and classes must allow.

use super::{InvalidTraining, count, number, refuse};
use crate::training::{Contents, FinalAttack, HttpSource, ObjectStoreSource, Objective, Source, Training};

impl Training {
    pub(super) fn check_data(&self) -> Result<(), InvalidTraining> {
        let data = &self.data;
        if data.image_size.is_some() && !data.dataset.is_encoded() {
            let name = data.dataset.name();
            return refuse(
                "data.imageSize",
                &format!(
                    "goes with image-folder and webdataset: the images of {name} have a size of their own"
                ),
            );
        }
        count("data.imageSize", data.image_size(), 8, 1024)?;
        count("data.validation.count", data.validation.count, 1, 40_000)?;
        self.check_augmentation()?;
        match &data.source {
            Source::Http(http) => check_http("data.source.http", http),
            Source::ObjectStore(store) => check_object_store(store),
            Source::Volume(_) | Source::Image(_) => Ok(()),
        }
    }

    fn check_augmentation(&self) -> Result<(), InvalidTraining> {
        let written = &self.data.augmentation;
        let variation = self.data.variation();
        count("data.augmentation.crop", variation.crop, 0, 16)?;
        if let Some(side) = written.cutout {
            count("data.augmentation.cutout", side, 1, 1024)?;
        }
        if let Some(part) = variation.random_resized_crop {
            number("data.augmentation.randomResizedCrop.minArea", part.min_area, 0.01, 1.0)?;
        }
        if let Some(mixing) = written.cut_mix {
            number("data.augmentation.cutMix.alpha", mixing.alpha, 0.1, 10.0)?;
            if matches!(self.objective, Objective::Mart(_)) || self.smoothing.is_some() {
                return refuse(
                    "data.augmentation.cutMix",
                    "goes with objective.crossEntropy and objective.trades, without smoothing: the others take one \
                     label for each image",
                );
            }
        }
        if written.random_resized_crop.is_some() && written.crop.is_some() {
            return refuse("data.augmentation", "crop and randomResizedCrop exclude one another; write one");
        }
        Ok(())
    }

    /// Checks what depends on the numbers of images and classes: for the trainer, where only the files can tell them.
    pub fn check_contents(&self, contents: &Contents, world_size: u32) -> Result<(), InvalidTraining> {
        let batch = self.schedule.batch_size;
        let training = contents.training_images.saturating_sub(self.data.validation.count as usize);
        let smallest = training / training.div_ceil(batch as usize).max(1);
        if smallest < world_size as usize {
            return refuse(
                "schedule.batchSize",
                &format!(
                    "an epoch of {training} images in steps of at most {batch} has steps of {smallest}, less than the \
                     {world_size} ranks of the world"
                ),
            );
        }
        if let Some(certify) = &self.evaluation.certify {
            count("evaluation.certify.images", certify.images, 1, contents.test_images as u32)?;
        }
        for attack in &self.evaluation.final_ {
            if matches!(attack, FinalAttack::ApgdT(_) | FinalAttack::AutoAttack(_)) && contents.classes < 4 {
                let classes = contents.classes;
                let problem = format!(
                    "apgdT, which is part of autoAttack, needs 4 classes for its difference of logits ratio, and the data \
                     set has {classes}; write pgd, apgdCe, cw, fabT or square"
                );
                return refuse("evaluation.final", &problem);
            }
            let (method, targeted) = match attack {
                FinalAttack::ApgdT(targeted) => ("apgdT", targeted),
                FinalAttack::FabT(targeted) => ("fabT", targeted),
                _ => continue,
            };
            let field = format!("evaluation.final.{method}.targets");
            count(&field, targeted.targets(), 1, contents.classes as u32 - 1)?;
        }
        Ok(())
    }
}

pub(super) fn check_http(field: &str, http: &HttpSource) -> Result<(), InvalidTraining> {
    check_url(&format!("{field}.url"), &http.url)?;
    if http.sha256.len() != 64 || !http.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return refuse(&format!("{field}.sha256"), "write its SHA-256 as 64 lower-case hexadecimal digits");
    }
    Ok(())
}

fn check_object_store(store: &ObjectStoreSource) -> Result<(), InvalidTraining> {
    let field = |name: &str| format!("data.source.objectStore.{name}");
    if store.bucket_and_prefix().is_none() {
        let problem =
            format!("{:?} is no bucket of S3; write for example s3://bucket/datasets/imagenet", store.url);
        return refuse(&field("url"), &problem);
    }
    store.endpoint.as_deref().map_or(Ok(()), |endpoint| check_url(&field("endpoint"), endpoint))?;
    let bounded = |name: &str, value: Option<&String>, most: usize| match value {
        Some(value) if !(1..=most).contains(&value.len()) => {
            refuse(&field(name), &format!("write 1 to {most} characters, or leave it out"))
        }
        _ => Ok(()),
    };
    bounded("endpoint", store.endpoint.as_ref(), 2048)?;
    bounded("region", store.region.as_ref(), 64)?;
    bounded("secretName", store.secret_name.as_ref(), 253)
}

fn check_url(field: &str, url: &str) -> Result<(), InvalidTraining> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return refuse(field, "must begin with http:// or https://");
    };
    if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
        return refuse(
            field,
            "has a user or a password before the host: whoever may read the job would read it",
        );
    }
    Ok(())
}
