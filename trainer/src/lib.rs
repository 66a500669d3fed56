//! The trainer of DatJob: the agent of a pod, the workers that it starts, and the training of a rank.
//!
//! - [`commands`]: the subcommands of `dat-trainer`.
//! - [`agent`]: process 1 of a pod; `dat-trainer run` runs it on a workstation. It joins the [`rendezvous`] and starts a
//!   worker for each rank.
//! - [`worker_protocol`]: the messages between agent and workers.
//! - [`engine`]: the training loop of a worker. It writes [`checkpoint`]s and [`outputs`], and [`kept_units`] while it evaluates.
//!
//! The crate `datjob-data` reads data and does not depend on libtorch. The crate `datjob-adversarial` has networks, attacks,
//! objectives and evaluation, and does not depend on ranks.

pub mod agent;
pub mod checkpoint;
pub mod commands;
pub mod engine;
mod failure;
pub mod kept_units;
pub mod outputs;
pub mod placement;
pub mod rendezvous;
pub mod telemetry;
pub mod worker_protocol;

/// The version of libtorch that this crate is built for.
pub const LIBTORCH_VERSION: &str = "2.11.0";
