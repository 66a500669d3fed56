//! Joining the world of a generation.

use std::time::Duration;

use datjob_c10d::{C10dError, CudaBackend, CudaError, GlooDevice, GlooOptions, ProcessGroup, TcpStore};

use crate::{
    placement::Placement,
    worker::assignment::{Accelerator, Assignment},
};

/// How long forming a group may take: the pods are there, and their workers start at the same time.
const FORMING: Duration = Duration::from_mins(2);

/// How long a collective may wait for a rank. A rank that is gone is noticed at once, by its connection or by the
/// rendezvous; this is for one that hangs. Ranks differ by up to one batch of an evaluation with all its restarts.
const COLLECTIVE: Duration = Duration::from_mins(30);

/// Where this rank computes.
pub(super) fn placement(assignment: &Assignment) -> Result<Placement, CudaError> {
    match assignment.accelerator {
        Accelerator::None => Ok(Placement::Cpu),
        Accelerator::Cuda { .. } => Placement::cuda(),
    }
}

/// Forms the process group of the assignment's generation.
pub(super) fn join(assignment: &Assignment, placement: Placement) -> Result<ProcessGroup, C10dError> {
    let Assignment { generation, rank, world_size, store_host, store_port, address, .. } = assignment;
    let store = TcpStore::connect(store_host, *store_port, FORMING)?;
    let store = store.prefix(&format!("generation-{generation}"))?;
    let options = GlooOptions { device: GlooDevice::Hostname(address.clone()), name: "world".to_owned() };
    let (rank, world_size) = (*rank as usize, *world_size as usize);
    match (assignment.accelerator, placement) {
        (Accelerator::Cuda { nccl }, Placement::Cuda(cuda)) => {
            let backend = if nccl { CudaBackend::Nccl } else { CudaBackend::Gloo };
            ProcessGroup::with_cuda(cuda, backend, &store, (rank, world_size), COLLECTIVE, &options)
        }
        _ => ProcessGroup::gloo(&store, rank, world_size, COLLECTIVE, &options),
    }
}
