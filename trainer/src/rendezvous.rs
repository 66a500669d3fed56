//! Who is in the world, and in which generation.
//!
//! Pod 0 hosts the rendezvous: every agent sends it a heartbeat twice a second with the state of its workers, and the reply is
//! what they should be doing. What is decided, and when, is the pure state machine [`quorum::Quorum`]; [`host`] and [`client`]
//! carry it over HTTP.
//!
//! A *generation* is a membership: it ends when one of its pods or workers is lost, and the next one has a higher
//! number. The number never falls: it is written to the checkpoint volume before it is announced. A pod that another one has
//! replaced under its index never counts again.
//!
//! Requests carry an HMAC of the attempt's token ([`token`]), and no request counts twice.
//!
//! A final failure is a *verdict*: it is written to the checkpoint volume before any pod receives it.

pub mod client;
pub mod generation_file;
pub mod host;
pub mod lease;
pub mod message;
mod pod_history;
pub mod preparation;
pub mod quorum;
mod replay;
pub mod token;
pub mod verdict_file;

pub use message::{Heartbeat, PodWait, Refused, Reply, State, Verdict, World};
