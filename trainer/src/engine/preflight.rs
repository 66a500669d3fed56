//! What is checked before the first step, because it would end the training hours later: that every image can be read, and
//! that the volume has room for checkpoints and results.

use datjob_adversarial::state_dict::StateDict;
use datjob_api::Training;
use datjob_data::{Check, DataError, Tally, find_faults};

use super::{Rank, TrainError, exchange, world};

impl Rank<'_> {
    /// Checks images and volume. All ranks call it; each checks its share of the images, and all fail with the faults of all.
    ///
    /// The test images and those of the validation split are decoded: training reads none of them. Of the training images,
    /// which the first epoch reads, headers and ends are checked. A training that resumes was checked before.
    pub(super) fn preflight(&self) -> Result<(), TrainError> {
        if self.state.step > 0 {
            return Ok(());
        }
        let test: Vec<usize> = (0..self.data.test.len()).collect();
        let mut faults = find_faults(&self.data.test, &self.share(&test), Check::Decode)?;
        let train = &self.data.train;
        faults.append(find_faults(train, &self.share(&self.split.validation), Check::Decode)?);
        faults.append(find_faults(train, &self.share(&self.split.training), Check::HeaderAndEnd)?);
        let mut all = Tally::default();
        world::all_gather_json(&self.evaluation, &faults)?.into_iter().for_each(|faults| all.append(faults));
        if !all.is_empty() {
            return Err(DataError::Faults(all).into());
        }
        if self.is_first() {
            self.checkpoints.wait_for_room(self.bytes_on_volume())?;
        }
        Ok(())
    }

    /// This rank's share of some images.
    fn share(&self, images: &[usize]) -> Vec<usize> {
        images.iter().copied().skip(self.group.rank()).step_by(self.group.world_size()).collect()
    }

    /// The most bytes that the job's files take: the kept checkpoints, each with its best weights, one within an epoch, and new
    /// ones; at the end, the kept ones and the best and the last weights.
    fn bytes_on_volume(&self) -> u64 {
        let parameters = bytes(&self.state.network.parameters());
        let residuals = residual_bytes(self.training, self.group.world_size(), parameters);
        let checkpoint = bytes(&self.state.tensors()) + residuals;
        let weights = bytes(&self.state.network.state());
        let kept = u64::from(self.training.checkpoint.keep.last);
        // A checkpoint within an epoch and the one that replaces it.
        let samples = 2 * (self.data.train.len() * size_of::<i64>()) as u64;
        let training = (kept + 2) * checkpoint + (kept + 1) * weights + samples;
        training.max(kept * checkpoint + (kept + 2) * weights)
    }
}

/// About the bytes of the rounding errors in a checkpoint: of the gradients of each rank, and of their average. `parameters` is
/// the bytes of the parameters.
fn residual_bytes(training: &Training, world_size: usize, parameters: u64) -> u64 {
    if world_size > 1 && exchange::has_error_feedback(training) {
        (world_size as u64 + 1) * parameters
    } else {
        0
    }
}

/// Bytes of tensors.
fn bytes(tensors: &StateDict) -> u64 {
    tensors.iter().map(|(_, tensor)| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn training(communication: &Value) -> Training {
        serde_json::from_value(json!({
            "model": {"architecture": "resnet18"},
            "data": {"dataset": "cifar10", "source": {"volume": {"persistentVolumeClaim": {"claimName": "x"}}}},
            "threatModel": {"epsilon": "8/255"}, "attack": {"fgsm": {}}, "communication": communication,
            "schedule": {"epochs": 1, "batchSize": 8}
        }))
        .unwrap()
    }

    #[test]
    fn rounding_errors_of_all_ranks_need_room() {
        let with_feedback = training(&json!({"compression": {"int8": {"errorFeedback": true}}}));
        assert_eq!([1, 2, 8].map(|ranks| residual_bytes(&with_feedback, ranks, 100)), [0, 300, 900]);
        for without in [json!({}), json!({"compression": {"int8": {}}}), json!({"compression": {"fp16": {}}})]
        {
            assert_eq!(residual_bytes(&training(&without), 8, 100), 0);
        }
    }
}
