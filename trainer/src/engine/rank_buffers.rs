//! Statistics of BatchNorm of all ranks, for a checkpoint within an epoch. Each rank has seen other images; between epochs their
//! statistics are averaged, and equal.

use datjob_c10d::ProcessGroup;
use tch::{Device, Kind, Tensor, no_grad};

use super::{State, TrainError};

/// Their name in a checkpoint.
pub(super) const NAME: &str = "ranks.buffers";

/// The statistics of all ranks, f32 `[ranks, values]`; `None` for a network without them. All ranks call it.
pub(super) fn gather(state: &State, group: &ProcessGroup) -> Result<Option<Tensor>, TrainError> {
    let buffers = buffers(state);
    if buffers.is_empty() {
        // Each rank has checked its own loss: no rank goes on before all have.
        group.barrier()?;
        return Ok(None);
    }
    let flat = |buffer: &Tensor| buffer.f_flatten(0, -1)?.f_to_device(Device::Cpu);
    let own = Tensor::f_cat(&buffers.iter().map(flat).collect::<Result<Vec<_>, _>>()?, 0)?;
    Ok(Some(group.all_gather(&own)?))
}

/// Gives every rank its statistics, which rank 0 has. In a world of another size, a rank gets those of one of the earlier ranks. All
/// ranks call it.
pub(super) fn scatter(state: &State, all: Option<Tensor>, group: &ProcessGroup) -> Result<(), TrainError> {
    let sizes: Vec<i64> = all.as_ref().map_or(vec![0, 0], Tensor::size);
    let sizes = Tensor::from_slice(&sizes);
    group.broadcast(&sizes, 0)?;
    let (ranks, values) = (sizes.f_int64_value(&[0])?, sizes.f_int64_value(&[1])?);
    if ranks == 0 {
        return Ok(());
    }
    let all = match all {
        Some(all) => all.f_contiguous()?,
        None => Tensor::f_zeros([ranks, values], (Kind::Float, Device::Cpu))?,
    };
    group.broadcast(&all, 0)?;
    let own = all.f_select(0, group.rank() as i64 % ranks)?;
    let mut offset = 0;
    no_grad(|| {
        for mut buffer in buffers(state) {
            let length = buffer.numel() as i64;
            buffer.f_copy_(&own.f_narrow(0, offset, length)?.f_view_as(&buffer)?)?;
            offset += length;
        }
        Ok(())
    })
}

/// Handles to the statistics of the weights that are trained and of the averaged ones.
fn buffers(state: &State) -> Vec<Tensor> {
    let average = state.average.iter().flat_map(|average| average.network.buffers());
    let all = state.network.buffers().into_iter().chain(average);
    all.map(|(_, buffer)| buffer).filter(Tensor::is_floating_point).collect()
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Contents;

    use super::{super::world::ranks::run_ranks, *};

    /// The state of a rank whose statistics are all `value`.
    fn state(value: f64) -> State {
        let training = serde_json::from_value(serde_json::json!({
            "model": {"architecture": "resnet18"},
            "data": {"dataset": "cifar10", "source": {"volume": {"persistentVolumeClaim": {"claimName": "x"}}}},
            "threatModel": {"epsilon": "8/255"}, "attack": {"fgsm": {}}, "averaging": {"ema": {"decay": 0.9}},
            "schedule": {"epochs": 1, "batchSize": 8}
        }))
        .unwrap();
        let contents = Contents { image_shape: [3, 32, 32], classes: 10, training_images: 8, test_images: 8 };
        let state = State::new(&training, &contents, Device::Cpu).unwrap();
        no_grad(|| buffers(&state).iter_mut().for_each(|buffer| drop(buffer.fill_(value))));
        state
    }

    fn values(state: &State) -> Vec<f64> {
        let mut values: Vec<f64> = buffers(state).iter().map(|buffer| buffer.double_value(&[0])).collect();
        values.dedup();
        values
    }

    #[test]
    fn every_rank_gets_its_statistics_back_also_in_a_world_of_another_size() {
        let gathered = run_ranks(3, |group| {
            gather(&state(group.rank() as f64), &group).unwrap().map(|all| (group.rank(), all))
        });
        let all = gathered.into_iter().flatten().find(|(rank, _)| *rank == 0).unwrap().1;
        for world_size in [2, 3, 4] {
            let all = std::sync::Mutex::new(Some(all.shallow_clone()));
            let found = run_ranks(world_size, |group| {
                let own = state(9.0);
                let all = if group.rank() == 0 { all.lock().unwrap().take() } else { None };
                scatter(&own, all, &group).unwrap();
                values(&own)
            });
            let expected: Vec<_> = (0..world_size).map(|rank| vec![(rank % 3) as f64]).collect();
            assert_eq!(found, expected);
        }
        // A checkpoint between epochs has none.
        assert_eq!(
            run_ranks(2, |group| {
                let own = state(9.0);
                scatter(&own, None, &group).unwrap();
                values(&own)
            }),
            [[9.0], [9.0]]
        );
    }
}
