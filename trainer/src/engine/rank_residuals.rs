//! Rounding errors of the error feedback of all ranks, for a checkpoint. Each rank has rounded other gradients, and has other
//! errors.

use datjob_adversarial::state_dict::StateDict;
use datjob_c10d::ProcessGroup;
use tch::{Device, Kind, Tensor};

use super::{
    TrainError,
    compress::{Residual, Residuals},
};

/// The prefix of their names in a checkpoint, followed by the number of the bucket. A tensor is f32 `[ranks, values]`.
const PREFIX: &str = "ranks.residuals.";

/// Whether a tensor of a checkpoint has rounding errors.
pub(super) fn is_residual(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The rounding errors of all ranks, on rank 0; nothing without error feedback. All ranks call it, between two steps. Other ranks
/// have at most one bucket of all ranks in memory.
pub(super) fn gather(residuals: Option<&Residuals>, group: &ProcessGroup) -> Result<StateDict, TrainError> {
    let mut gathered = StateDict::new();
    let Some(residuals) = residuals else { return Ok(gathered) };
    // The buckets are the same on all ranks.
    for bucket in residuals.names() {
        let own = Tensor::f_from_slice(&residuals.get(bucket).to_values())?;
        let all = group.all_gather(&own)?;
        if group.rank() == 0 {
            gathered.push((format!("{PREFIX}{bucket:04}"), all));
        }
    }
    Ok(gathered)
}

/// Gives every rank the rounding errors that it had when a checkpoint was written; `saved` has those of all ranks, on rank 0. In a
/// world of another size they are discarded, and start at zero. All ranks call it, before the first step.
pub(super) fn scatter(
    residuals: Option<&Residuals>,
    saved: StateDict,
    group: &ProcessGroup,
) -> Result<(), TrainError> {
    let Some(residuals) = residuals else { return Ok(()) };
    let world_size = group.world_size();
    let mut buckets: Vec<(i64, Tensor)> = saved.into_iter().filter_map(bucket).collect();
    let is_of_this_world =
        |tensor: &Tensor| matches!(tensor.size()[..], [ranks, _] if ranks == world_size as i64);
    if !buckets.iter().all(|(_, tensor)| is_of_this_world(tensor)) {
        tracing::warn!(
            ranks = world_size,
            "The checkpoint is of a world of another size: discarding its rounding errors (errorFeedback)."
        );
        buckets.clear();
    }
    let count = Tensor::from_slice(&[buckets.len() as i64]);
    group.broadcast(&count, 0)?;
    let count = count.f_int64_value(&[0])?;
    if count == 0 {
        return Ok(());
    }
    let sizes: Vec<i64> = buckets.iter().flat_map(|(bucket, tensor)| [*bucket, tensor.size()[1]]).collect();
    let sizes = match group.rank() {
        0 => Tensor::from_slice(&sizes),
        _ => Tensor::f_zeros([2 * count], (Kind::Int64, Device::Cpu))?,
    };
    group.broadcast(&sizes, 0)?;
    let mut tensors = buckets.into_iter().map(|(_, tensor)| tensor);
    for size in Vec::<i64>::try_from(&sizes)?.chunks_exact(2) {
        let (bucket, values) = (size[0], size[1]);
        let all = match tensors.next() {
            Some(tensor) => tensor.f_contiguous()?,
            None => Tensor::f_zeros([world_size as i64, values], (Kind::Float, Device::Cpu))?,
        };
        group.broadcast(&all, 0)?;
        let own = Vec::<f32>::try_from(&all.f_select(0, group.rank() as i64)?.f_contiguous()?)?;
        residuals.insert(bucket as usize, Residual::from_values(&own, world_size));
    }
    Ok(())
}

/// The number of a bucket and its tensor.
fn bucket((name, tensor): (String, Tensor)) -> Option<(i64, Tensor)> {
    Some((name.strip_prefix(PREFIX)?.parse().ok()?, tensor))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{super::world::ranks::run_ranks, *};

    const BUCKETS: [usize; 2] = [0, 12];

    /// A residual that differs between ranks, buckets and parts.
    fn residual(rank: usize, bucket: usize, world_size: usize) -> Residual {
        let value = (100 * rank + bucket) as f32;
        Residual { contribution: vec![value; 4 * world_size], average: vec![value + 0.5; 4] }
    }

    /// What a world of this size has after it resumed, by rank and bucket.
    fn resumed(world_size: usize, saved: &StateDict) -> Vec<Vec<Residual>> {
        let saved: StateDict =
            saved.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let saved = Mutex::new(Some(saved));
        run_ranks(world_size, |group| {
            let own = if group.rank() == 0 { saved.lock().unwrap().take() } else { None };
            let residuals = Residuals::default();
            scatter(Some(&residuals), own.unwrap_or_default(), &group).unwrap();
            residuals.names().into_iter().map(|bucket| residuals.get(bucket)).collect()
        })
    }

    #[test]
    fn every_rank_gets_its_rounding_errors_back_in_a_world_of_the_same_size() {
        let gathered = run_ranks(3, |group| {
            let residuals = Residuals::default();
            for bucket in BUCKETS {
                residuals.insert(bucket, residual(group.rank(), bucket, 3));
            }
            gather(Some(&residuals), &group).unwrap()
        });
        assert_eq!(gathered.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 0]);
        assert!(gathered[0].iter().all(|(name, _)| is_residual(name)));
        let expected: Vec<Vec<Residual>> =
            (0..3).map(|rank| BUCKETS.map(|bucket| residual(rank, bucket, 3)).to_vec()).collect();
        assert_eq!(resumed(3, &gathered[0]), expected);
        for world_size in [1, 2, 4] {
            assert_eq!(resumed(world_size, &gathered[0]), vec![Vec::new(); world_size]);
        }
        // A checkpoint of an older trainer has none.
        assert_eq!(resumed(2, &StateDict::new()), vec![Vec::new(); 2]);
    }
}
