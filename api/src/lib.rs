//! Types and names that the operator and the trainers of DatJob share.
//!
//! - [`training`]: the training spec, which is immutable, and which `dat-trainer run` reads too.
//! - [`manifest`]: a DatJob manifest in a file.
//! - [`report`]: the report of a trainer pod.
//! - [`restarts`]: which failures `lifecycle.maxRestarts` counts.
//! - [`contract`]: names of environment variables, ports, paths and labels.
//! - [`datjob`] (feature `crd`): the custom resource DatJob, its status and its validation rules.
//!
//! The trainer does not need the feature `crd`. If cargo builds it together with the operator, as for the images, the
//! feature is enabled, and the linker drops the unused code.

pub mod contract;
pub mod dataset;
#[cfg(feature = "crd")]
pub mod datjob;
pub mod epsilon;
pub mod manifest;
mod patterns;
pub mod report;
pub mod restarts;
mod schema;
pub mod training;

pub use epsilon::Epsilon;
pub use report::Report;
pub use training::Training;
