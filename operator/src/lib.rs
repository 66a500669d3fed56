//! The operator of DatJob.
//!
//! [`controller`] reconciles jobs in a pipeline of stages, of which only three call the API server. [`leader`] elects the
//! operator that reconciles, [`reports`] reads the reports of trainer pods, [`admin`] serves metrics and health, and
//! [`run`] starts all of it. [`mod@reference`] renders docs/reference.md.

pub mod admin;
pub mod cache;
pub mod calls;
pub mod cli;
pub mod clock;
pub mod conditions;
pub mod controller;
pub mod events;
pub mod installation;
pub mod jitter;
pub mod leader;
pub mod metrics;
pub mod reference;
pub mod reports;
pub mod requests;
pub mod run;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod text;
