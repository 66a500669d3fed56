//! The end-to-end tests, one group a module. `make e2e GROUP=recovery` runs one group.
//!
//! All groups are one program: a test that needs the cluster for itself (`Namespace::alone`) waits for the others there.

mod completion;
mod data;
mod lifecycle;
mod recovery;
mod refusal;
mod scale;
mod upgrade;
