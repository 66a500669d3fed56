//! Joining the world of a generation.

use std::time::Duration;

use datjob_c10d::{
    C10dError, CudaBackend, CudaError, GlooDevice, GlooOptions, ProcessGroup, ReduceOp, Store, TcpStore,
};
use serde::{Serialize, de::DeserializeOwned};
use tch::Tensor;

use super::{TrainError, exchange};
use crate::{
    placement::Placement,
    worker_protocol::{Accelerator, Assignment},
};

/// How long forming a group may take: the pods are there, and their workers start at the same time.
const FORMING: Duration = Duration::from_mins(2);

/// How long a collective may wait for a rank. A rank that is gone is noticed at once, by its connection or by the
/// rendezvous; this is for one that hangs.
const COLLECTIVE: Duration = Duration::from_mins(30);

/// The same after an evaluation: ranks differ by up to one batch with all its attacks, which for AutoAttack on a large
/// network without a GPU is hours.
const EVALUATION: Duration = Duration::from_hours(48);

/// Where this rank computes.
pub(super) fn placement(assignment: &Assignment) -> Result<Placement, CudaError> {
    match assignment.accelerator {
        Accelerator::None => Ok(Placement::Cpu),
        Accelerator::Cuda { .. } => Placement::cuda(),
    }
}

/// Fails in every process where not all read the same images: splits, orders and shards are drawn from them.
pub(super) fn require_same_data(group: &ProcessGroup, fingerprint: &str) -> Result<(), TrainError> {
    let gathered = group.all_gather(&Tensor::from_slice(fingerprint.as_bytes()))?;
    let fingerprints = Vec::<Vec<u8>>::try_from(&gathered)?;
    match fingerprints.iter().position(|other| other != &fingerprints[0]) {
        None => Ok(()),
        Some(rank) => Err(TrainError::OtherData { rank }),
    }
}

/// The distinct names of the devices of all ranks, in the order of ranks. Every rank must call it.
pub(super) fn device_names(group: &ProcessGroup, own: &str) -> Result<Vec<String>, TrainError> {
    let mut names: Vec<String> = Vec::new();
    for name in all_gather_json(group, &own.to_owned())? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The values of all ranks, in the order of ranks. Every rank must call it.
pub(super) fn all_gather_json<T: Serialize + DeserializeOwned>(
    group: &ProcessGroup,
    own: &T,
) -> Result<Vec<T>, TrainError> {
    let mut bytes = serde_json::to_vec(own)?;
    // The tensors of a collective have the same length on all ranks.
    let length = Tensor::from_slice(&[bytes.len() as i64]);
    group.all_reduce(&length, ReduceOp::Max)?;
    bytes.resize(length.int64_value(&[0]) as usize, b' ');
    let gathered = Vec::<Vec<u8>>::try_from(&group.all_gather(&Tensor::from_slice(&bytes))?)?;
    gathered.iter().map(|bytes| Ok(serde_json::from_slice(bytes)?)).collect()
}

/// The groups of a generation.
pub(super) struct World {
    /// For training.
    pub group: ProcessGroup,
    /// For the counts of evaluations, on the CPU.
    pub evaluation: ProcessGroup,
    /// For gradients, where a hook averages them.
    pub gradients: Option<ProcessGroup>,
}

/// Forms the process groups of the assignment's generation.
pub(super) fn join(assignment: &Assignment, placement: Placement) -> Result<World, C10dError> {
    let Assignment { rank, world_size, store_host, store_port, address, .. } = assignment;
    let store = TcpStore::connect(store_host, *store_port, FORMING)?;
    let (rank, world_size) = (*rank as usize, *world_size as usize);
    let options =
        |name: &str| GlooOptions { device: GlooDevice::Hostname(address.clone()), name: name.to_owned() };
    let prefix = store_prefix(&assignment.job_uid, assignment.attempt, assignment.generation);
    let keys = |group: &str| store.prefix(&format!("{prefix}/{group}"));
    let form = |store: &Store, name: &str| match (assignment.accelerator, placement) {
        (Accelerator::Cuda { nccl }, Placement::Cuda(cuda)) => {
            let backend = if nccl { CudaBackend::Nccl } else { CudaBackend::Gloo };
            ProcessGroup::with_cuda(cuda, backend, store, rank, world_size, COLLECTIVE, &options(name))
        }
        _ => ProcessGroup::gloo(store, rank, world_size, COLLECTIVE, &options(name)),
    };
    let group = form(&keys("world")?, "world")?;
    let counts = keys("evaluation")?;
    let evaluation = ProcessGroup::gloo(&counts, rank, world_size, EVALUATION, &options("evaluation"))?;
    let gradients = if exchange::is_hooked(&assignment.training) {
        Some(form(&keys("gradients")?, "gradients")?)
    } else {
        None
    };
    Ok(World { group, evaluation, gradients })
}

/// The prefix of all keys of a world. Ranks of another job, attempt or generation, which may outlive their pod's deletion,
/// have other keys.
fn store_prefix(job_uid: &str, attempt: u32, generation: u32) -> String {
    format!("job-{job_uid}/attempt-{attempt}/generation-{generation}")
}

#[cfg(test)]
#[path = "../../tests/common/ranks.rs"]
pub(super) mod ranks;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_of_other_jobs_attempts_and_generations_have_other_keys() {
        let prefix = store_prefix("2f9d", 2, 7);
        assert_eq!(prefix, "job-2f9d/attempt-2/generation-7");
        for other in [store_prefix("30aa", 2, 7), store_prefix("2f9d", 1, 7), store_prefix("2f9d", 2, 8)] {
            assert_ne!(other, prefix);
        }
    }

    #[test]
    fn devices_of_all_ranks_are_named_once() {
        let long = "x".repeat(300);
        let names = |own: [&str; 3]| {
            ranks::run_ranks(3, |group| {
                device_names(&group, own[group.rank()]).map_err(|error| error.to_string())
            })
        };
        for found in names(["A CPU", "A CPU", "A CPU"]) {
            assert_eq!(found.unwrap(), ["A CPU"]);
        }
        for found in names(["A CPU", &long, "A CPU"]) {
            assert_eq!(found.unwrap(), ["A CPU", &long]);
        }
    }

    #[test]
    fn every_rank_names_those_that_read_other_images() {
        let results = |fingerprints: [&str; 3]| {
            ranks::run_ranks(3, |group| {
                let own = fingerprints[group.rank()];
                require_same_data(&group, own).map_err(|error| error.to_string())
            })
        };
        assert_eq!(results(["a", "a", "a"]), [Ok(()), Ok(()), Ok(())]);
        for sentence in results(["a", "a", "b"]) {
            assert!(sentence.unwrap_err().starts_with("rank 2 reads different images than rank 0"));
        }
    }
}
