//! The trainer of DatJob as a library: what a worker computes.
//!
//! [`attack`], [`objective`], [`model`] and [`optim`] know nothing of ranks; [`data`] and [`evaluate`] take a rank and
//! a world size as plain numbers. Whatever is random comes from [`random`], keyed by what it is for, so that a result
//! depends on the seed and not on the world.

pub mod attack;
pub mod data;
pub mod evaluate;
pub mod model;
pub mod objective;
pub mod optim;
pub mod random;
