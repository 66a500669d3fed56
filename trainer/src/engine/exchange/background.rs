//! A thread that averages buckets in fewer bits, one after the other.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use datjob_c10d::{BucketHook, C10dError, ErrorDetails, Member, libtorch_message};
use tch::Tensor;

use crate::engine::compress::{CompressError, CompressedAllReduce, Rounding};

/// How a bucket is rounded in a step, both counted from 0.
pub(super) type BucketRounding = Box<dyn Fn(u64, usize) -> Rounding + Send>;

/// A bucket to average.
type Bucket = (usize, Tensor, Rounding);

/// Buckets to average, and those that were.
pub(super) struct Background {
    buckets: Sender<Bucket>,
    averaged: Receiver<Result<(), CompressError>>,
    under_way: usize,
    /// The step, counted from 0 over all epochs.
    step: u64,
    rounding: BucketRounding,
    member: Member,
}

impl Background {
    /// Starts the thread, before that step. It ends with the last handle to its channel, or where a collective keeps it when
    /// that ends.
    pub(super) fn new(
        all_reduce: CompressedAllReduce,
        member: Member,
        step: u64,
        rounding: BucketRounding,
    ) -> Result<Self, C10dError> {
        let (buckets, to_average) = mpsc::channel();
        let (done, averaged) = mpsc::channel();
        let thread = thread::Builder::new().name("compression".to_owned());
        let started = thread.spawn(move || average(all_reduce, &to_average, &done));
        started.map_err(|error| failed(member, &format!("cannot start the compression thread: {error}")))?;
        Ok(Self { buckets, averaged, under_way: 0, step, rounding, member })
    }
}

/// Averages until something fails: what comes after that would wait for ranks that do not answer.
fn average(
    mut all_reduce: CompressedAllReduce,
    buckets: &Receiver<Bucket>,
    done: &Sender<Result<(), CompressError>>,
) {
    while let Ok((bucket, gradient, rounding)) = buckets.recv() {
        let result = all_reduce.mean(bucket, &gradient, rounding);
        let failed = result.is_err();
        if done.send(result).is_err() || failed {
            return;
        }
    }
}

impl BucketHook for Background {
    fn start(&mut self, bucket: usize, gradient: Tensor) -> Result<(), C10dError> {
        self.under_way += 1;
        // Where the thread has ended, `finish` says why.
        let _ = self.buckets.send((bucket, gradient, (self.rounding)(self.step, bucket)));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), C10dError> {
        self.step += 1;
        for _ in 0..std::mem::take(&mut self.under_way) {
            match self.averaged.recv() {
                Ok(Ok(())) => {}
                Ok(Err(CompressError::Collective(error))) => return Err(error),
                Ok(Err(CompressError::Tensor(error))) => {
                    return Err(failed(self.member, &libtorch_message(&error)));
                }
                Err(_) => {
                    return Err(failed(
                        self.member,
                        "the compression thread stopped after an earlier error or a panic",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn failed(member: Member, message: &str) -> C10dError {
    let operation = "compressed all-reduce of gradients".to_owned();
    C10dError::Other(ErrorDetails { operation, member: Some(member), message: message.to_owned() })
}
