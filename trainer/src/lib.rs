//! The trainer of DatJob: the agent of a pod, the workers that it starts, and what they compute.
//!
//! From the outside in: [`agent`] (process 1 of a pod; [`run`] is the same on a workstation) keeps in touch with the
//! [`rendezvous`] and starts a [`worker`] for each rank; a worker runs the [`engine`], the training loop.
//!
//! [`attack`], [`objective`], [`weight_perturbation`], [`model`] and [`optim`] know nothing of ranks; [`data`] and
//! [`evaluate`] take a rank and a world size as plain numbers; [`compress`] is an all-reduce like any other. Whatever is random comes from [`random`], keyed by what it is for, so that a result
//! depends on the seed and not on the world.

pub mod agent;
pub mod attack;
pub mod averaging;
pub mod certify;
pub mod checkpoint;
pub mod cli;
pub mod compress;
pub mod data;
pub mod engine;
pub mod evaluate;
pub mod evaluate_weights;
pub mod figures;
pub mod files;
pub mod losses;
pub mod manifest;
pub mod model;
pub mod objective;
pub mod optim;
pub mod outputs;
pub mod placement;
pub mod random;
pub mod rendezvous;
pub mod run;
pub mod smoothing;
pub mod telemetry;
mod tls;
pub mod weight_perturbation;
pub mod weights;
pub mod worker;

/// The version of libtorch that this was built for.
pub const LIBTORCH_VERSION: &str = "2.11.0";
