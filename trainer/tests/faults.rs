//! A job of four agents that meets faults. Each agent is process 1 of a pod, as in a cluster: it has an address on a network
//! that the test makes, the directories of the contract, and the environment that the operator sets. After a fault, the job
//! has the results of a job without one, bit for bit, and every epoch has trained on each image once.
//!
//! `make test` runs one fault per job; `make chaos` draws faults at random. The host's interfaces, mounts and cgroups do not
//! change.

#[path = "faults/chaos.rs"]
mod chaos;
#[path = "faults/fault.rs"]
mod fault;
#[path = "faults/hangs.rs"]
mod hangs;
#[path = "common/interposer.rs"]
mod interposer;
#[path = "faults/job.rs"]
mod job;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/outcome.rs"]
mod outcome;
#[path = "faults/pod.rs"]
mod pod;
#[path = "faults/privileges.rs"]
mod privileges;
#[path = "common/processes.rs"]
#[expect(dead_code, reason = "shared with run.rs")]
mod processes;
#[path = "faults/recoveries.rs"]
mod recoveries;
#[path = "faults/root.rs"]
mod root;
#[path = "common/run.rs"]
#[expect(dead_code, reason = "shared with run.rs")]
mod run;
#[path = "faults/signals.rs"]
mod signals;
#[path = "faults/storage_fault.rs"]
mod storage_fault;
#[path = "common/synthetic_image_folder.rs"]
mod synthetic_image_folder;
#[path = "common/test_directory.rs"]
mod test_directory;
#[path = "faults/undisturbed.rs"]
mod undisturbed;
#[path = "faults/watch.rs"]
mod watch;
