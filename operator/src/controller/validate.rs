//! Stage 2: checks whether the operator can run a job. Pure.
//!
//! This stage sees only the spec. A missing claim or an image that cannot be pulled shows in the pods' states.

use std::collections::BTreeSet;

use datjob_api::{
    datjob::DatJob,
    training::{InvalidTraining, Topology},
};
use kube::Resource as _;

use super::identity::Identity;
use crate::conditions;

mod gpus;
mod pod;
mod sources;
mod volumes;

/// Result of the validation of a job.
#[derive(Debug)]
pub enum Validation<'a> {
    /// The job can run.
    Valid(ValidJob<'a>),
    /// The job has finished. Its outcome is final, whatever is edited later.
    Finished,
    /// The job cannot run: the operator creates nothing.
    Invalid(InvalidSpec),
}

/// A job with a valid spec.
#[derive(Debug)]
pub struct ValidJob<'a> {
    /// The job.
    pub job: &'a DatJob,
    /// Its names.
    pub identity: &'a Identity,
    /// The ports from which pods fetch data and files.
    pub source_ports: BTreeSet<u16>,
}

/// An invalid spec: the field and what to write there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what to write.
    pub problem: String,
}

impl InvalidSpec {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl From<InvalidTraining> for InvalidSpec {
    fn from(InvalidTraining { field, problem }: InvalidTraining) -> Self {
        Self { field: format!("spec.training.{field}"), problem }
    }
}

/// Validates a job.
pub fn validate<'a>(job: &'a DatJob, identity: &'a Identity) -> Validation<'a> {
    let status = job.status.as_ref();
    if status.is_some_and(conditions::is_finished) {
        return Validation::Finished;
    }
    // Only before the first attempt: a new rule of a newer operator must not fail a job that has started.
    let started = status.is_some_and(|status| status.attempt > 0);
    match check(job) {
        Err(invalid) if !started => Validation::Invalid(invalid),
        _ => Validation::Valid(ValidJob { job, identity, source_ports: sources::ports(job) }),
    }
}

fn check(job: &DatJob) -> Result<(), InvalidSpec> {
    let spec = &job.spec;
    let topology: Topology = spec.topology();
    gpus::check(&spec.pod, topology)?;
    spec.training.check(topology)?;
    sources::check(&spec.training, &spec.pod)?;
    pod::check(&spec.pod)?;
    volumes::check(&spec.pod)
}

/// Whether the job is being deleted. The garbage collector then deletes its children.
pub fn is_deleted(job: &DatJob) -> bool {
    job.meta().deletion_timestamp.is_some()
}

fn refuse(field: impl Into<String>, problem: impl Into<String>) -> Result<(), InvalidSpec> {
    Err(InvalidSpec::new(field, problem))
}

fn check_unique<'a>(field: &str, mut values: impl Iterator<Item = &'a str>) -> Result<(), InvalidSpec> {
    let mut seen = BTreeSet::new();
    match values.find(|value| !seen.insert(*value)) {
        Some(value) => refuse(field, format!("duplicate value {value:?}; remove one of them")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
