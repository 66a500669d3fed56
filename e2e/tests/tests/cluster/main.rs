//! The end-to-end tests, one group per module. `make e2e GROUP=recovery` runs one group.
//!
//! All groups are one program, so that a test with an exclusive lock (`Namespace::exclusive`) waits for all others.

mod completion;
mod data;
mod installations;
mod interruptions;
mod lifecycle;
mod recovery;
mod refusal;
mod scale;
mod upgrade;
