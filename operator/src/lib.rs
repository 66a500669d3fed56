//! The operator of DatJob.
//!
//! [`controller`] is where jobs become StatefulSets: a pipeline of stages, of which only three talk to the API server.
//! Around it: [`leader`] decides which operator reconciles, [`reports`] asks trainer pods how far they are, [`admin`]
//! serves metrics and health, [`run`] starts all of it. [`reference`] writes docs/reference.md.

pub mod admin;
pub mod cache;
pub mod calls;
pub mod cli;
pub mod conditions;
pub mod controller;
pub mod events;
pub mod jitter;
pub mod leader;
pub mod metrics;
pub mod reference;
pub mod reports;
pub mod run;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod text;
