//! A simulated node whose pods report training progress.
//!
//! No container runs. A simulated kubelet ([`kubelet`]) sets the statuses of the pods that the scheduler binds to the
//! node, and one server ([`server`]) answers for the addresses of all pods.

pub mod kubelet;
pub mod node;
pub mod pods;
pub mod server;
