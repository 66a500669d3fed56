//! The trainer of DatJob: the agent of a pod, the workers that it starts, and the training of a rank.
//!
//! From the outside in: [`commands`] are what `dat-trainer` can be asked to do; the [`agent`] (process 1 of a pod; `run` is
//! the same on a workstation) keeps in touch with the [`rendezvous`] and starts a worker for each rank, to which it speaks
//! by the [`worker_protocol`]; a worker runs the [`engine`], the training loop, which writes [`checkpoint`]s and
//! [`outputs`].
//!
//! Data are read by the crate `datjob-data`, which knows nothing of libtorch; networks, attacks, objectives and evaluation
//! are in `datjob-adversarial`, which knows nothing of ranks.

pub mod agent;
pub mod checkpoint;
pub mod commands;
pub mod engine;
mod failure;
pub mod outputs;
pub mod placement;
pub mod rendezvous;
pub mod telemetry;
pub mod worker_protocol;

/// The version of libtorch that this was built for.
pub const LIBTORCH_VERSION: &str = "2.11.0";
