//! What one process computes of adversarial training: networks, attacks, objectives, optimizers, evaluation.
//!
//! Nothing here knows of ranks or of the network: [`evaluate`] and [`certify`] take a rank and a world size as plain numbers
//! (`clippy.toml` forbids the collectives of `datjob-c10d`, of which the memory format alone is used). The engine of the
//! trainer puts these parts together.

pub mod attack;
pub mod averaging;
pub mod certify;
pub mod evaluate;
pub mod model;
pub mod objective;
pub mod optim;
pub mod smoothing;
pub mod state_dict;
pub mod tensors;
pub mod weight_perturbation;
