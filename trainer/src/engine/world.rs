//! Joining the world of a generation.

use std::time::Duration;

use datjob_c10d::{C10dError, GlooDevice, GlooOptions, ProcessGroup, TcpStore};

use crate::worker::assignment::Assignment;

/// How long forming a group may take: the pods are there, and their workers start at the same time.
const FORMING: Duration = Duration::from_mins(2);

/// How long a collective may wait for a rank. A rank that is gone is noticed at once, by its connection or by the
/// rendezvous; this is for one that hangs. Ranks differ by up to one batch of an evaluation with all its restarts.
const COLLECTIVE: Duration = Duration::from_mins(30);

/// Forms the process group of the assignment's generation.
pub(super) fn join(assignment: &Assignment) -> Result<ProcessGroup, C10dError> {
    let Assignment { generation, rank, world_size, store_host, store_port, address, .. } = assignment;
    let store = TcpStore::connect(store_host, *store_port, FORMING)?;
    let store = store.prefix(&format!("generation-{generation}"))?;
    let options = GlooOptions { device: GlooDevice::Hostname(address.clone()), name: "world".to_owned() };
    ProcessGroup::gloo(&store, *rank as usize, *world_size as usize, COLLECTIVE, &options)
}
