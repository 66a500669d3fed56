//! Real collectives among real processes on the loopback interface.
//!
//! A test here runs twice: as the parent, which hosts the store and starts one process for each rank, and in each of
//! those, which run this test binary again for the same test with a [`Rank`] in the environment.

mod collectives;
mod failures;
mod hook;
mod reducer;
mod store;
mod world;
