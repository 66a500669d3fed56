//! Images beside those of the data set: reading them, and labels for those that have none.

use datjob_api::training::{Additional, Dataset, Labels, NamedFile, Teacher};
use datjob_c10d::{ProcessGroup, ReduceOp};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::{NamedFileError, TrainError, accuracy, named_file, world};
use crate::{placement::Placement, worker_protocol::Assignment};
use datjob_adversarial::{evaluate, model::Network, state_dict};
use datjob_data::{DataSet, Images, UNLABELLED};

/// Images that a teacher labels at once. The same for every world, so that labels do not depend on it.
const BATCH: usize = 512;

/// Adds the additional images of the spec to the training images. Returns a fingerprint of the images and of the source of
/// their labels, which is the same on all ranks. All ranks call it.
pub(super) fn add(
    data: &mut DataSet,
    spec: &Additional,
    assignment: &Assignment,
    placement: Placement,
    group: &ProcessGroup,
) -> Result<String, TrainError> {
    let path = named_file::path(assignment, NamedFile::AdditionalImages)?;
    let (images, labels) = datjob_data::read_npz(path, data.train.shape()).map_err(NamedFileError::from)?;
    let mut fingerprint = Sha256::new();
    fingerprint.update(images.fingerprint());
    let labels = match &spec.labels {
        Labels::Given(_) => {
            let labels = labels.ok_or_else(|| NamedFileError::NoLabels(path.to_owned()))?;
            for label in &labels {
                fingerprint.update(label.to_le_bytes());
            }
            classes(&labels, data.classes)?
        }
        Labels::None(_) => vec![UNLABELLED; images.len()],
        Labels::Teacher(teacher) => {
            let network = network(teacher, data, assignment, placement)?;
            // The weights, not the labels: the class of an image can depend on the CPU or GPU model.
            fingerprint.update(state_dict::encode(&network.state(), None)?);
            classes(&labelled(&images, &network, placement.device(), group)?, data.classes)?
        }
    };
    tracing::info!(images = images.len(), "Training with additional images.");
    data.add_images(&images, &labels);
    let fingerprint = hex::encode(fingerprint.finalize());
    world::require_same_data(group, &fingerprint)?;
    Ok(fingerprint)
}

/// Labels as classes of the data set.
fn classes(labels: &[i64], classes: i64) -> Result<Vec<u16>, NamedFileError> {
    let class = |(image, &label): (usize, &i64)| {
        let class = u16::try_from(label).ok().filter(|_| label < classes);
        class.ok_or(NamedFileError::Label { image, label, classes })
    };
    labels.iter().enumerate().map(class).collect()
}

fn network(
    teacher: &Teacher,
    data: &DataSet,
    assignment: &Assignment,
    placement: Placement,
) -> Result<Network, TrainError> {
    const FILE: NamedFile = NamedFile::TeacherWeights;
    let path = named_file::path(assignment, FILE)?;
    let dataset: Dataset = assignment.training.data.dataset;
    let options = (Kind::Float, placement.device());
    // The seed is of no effect: all weights are read.
    let mut network = Network::for_dataset(&teacher.model, dataset, &data.contents(), 0, options)?;
    let (tensors, _) =
        state_dict::read(path).map_err(|error| NamedFileError::Weights { file: FILE, error })?;
    let loaded = network.load_state(tensors);
    loaded.map_err(|error| NamedFileError::Model { file: FILE, path: path.to_owned(), error })?;
    network.channels_last()?;
    Ok(network)
}

/// The likeliest class of each image; each rank asks the network for its share of the batches.
fn labelled(
    images: &Images,
    network: &Network,
    device: Device,
    group: &ProcessGroup,
) -> Result<Vec<i64>, TrainError> {
    let all: Vec<usize> = (0..images.len()).collect();
    let indices: Vec<usize> = accuracy::shard(group).select(all.chunks(BATCH)).flatten().copied().collect();
    let mut labels = vec![0_i64; images.len()];
    for (&index, class) in indices.iter().zip(evaluate::predict(network, images, &indices, BATCH, device)?) {
        labels[index] = class;
    }
    let labels = Tensor::f_from_slice(&labels)?;
    group.all_reduce(&labels, ReduceOp::Sum)?;
    Ok(Vec::try_from(&labels)?)
}
