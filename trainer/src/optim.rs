//! The optimizer and the learning rate over time.

mod schedule;
mod sgd;

pub use schedule::learning_rate;
pub use sgd::Sgd;
