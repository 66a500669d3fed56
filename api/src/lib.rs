//! What the operator and the trainers of DatJob agree on.
//!
//! - [`training`]: what is trained and how; the immutable part of a job, and all that `dat-trainer run` reads.
//! - [`manifest`]: a DatJob as a file.
//! - [`report`]: what a trainer pod reports about its job.
//! - [`contract`]: names of environment variables, ports, paths and labels.
//! - [`datjob`] (feature `crd`): the custom resource DatJob, its status and its rules.
//!
//! The trainer does not need the feature `crd`. Where cargo builds it together with the operator, as for the images, the
//! feature is on; the linker drops what the trainer does not use.

pub mod contract;
pub mod dataset;
#[cfg(feature = "crd")]
pub mod datjob;
pub mod epsilon;
pub mod manifest;
pub mod report;
mod schema;
pub mod training;

pub use epsilon::Epsilon;
pub use report::Report;
pub use training::Training;
