//! What a worker tells its agent: a line of JSON each, on standard output.

use datjob_api::report::{Accuracy, Failure, Progress, Timing};
use serde::{Deserialize, Serialize};

/// An event in the life of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// How far training is; from rank 0 alone, at most once a second.
    Progress(Progress),
    /// Where the time of an epoch went; from rank 0 alone.
    Timing(Timing),
    /// An evaluation on the validation split; from rank 0 alone.
    Accuracy(Accuracy),
    /// The final evaluation: images that this rank has evaluated, of how many. From rank 0 alone.
    Evaluating {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The end, with the reason; a good end needs no word.
    Failed(Failure),
}
