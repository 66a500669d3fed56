//! The part of adversarial training that one process computes: networks, attacks, objectives, optimizers, evaluation.
//!
//! This crate does not communicate: [`evaluate`] and [`certify`] take a [`Shard`](shard::Shard) of plain numbers.
//! `clippy.toml` forbids the collectives of `datjob-c10d`; only its memory format is used. The trainer's engine combines
//! these parts.

pub mod attack;
pub mod averaging;
pub mod certify;
pub mod evaluate;
pub mod model;
pub mod objective;
pub mod optim;
mod parts;
pub mod shard;
pub mod smoothing;
pub mod state_dict;
pub mod tensors;
pub mod test_protocol;
pub mod weight_perturbation;
