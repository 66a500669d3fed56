//! Collectives between real processes on the loopback interface.
//!
//! Each test runs in a parent and in child processes. The parent hosts the store and starts one process for each rank. A
//! child runs this test binary again for the same test, with a [`Rank`] in the environment.

mod collectives;
mod failures;
mod hook;
mod reducer;
mod store;
mod world;
