//! Communication hooks.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use datjob_c10d::{BucketHook, C10dError, ProcessGroup, ReduceOp, Reducer, Work};
use tch::Tensor;

use crate::{
    reducer::{Model, OPTIONS, check_gradients, step},
    world::{PATIENCE, Rank, gloo, run},
};

/// Averages buckets by all-reduce and counts them.
struct AllReduceHook {
    group: ProcessGroup,
    works: Vec<Work>,
    buckets: Arc<AtomicUsize>,
}

impl AllReduceHook {
    fn new(rank: &Rank, name: &str, buckets: &Arc<AtomicUsize>) -> Box<Self> {
        let group = gloo(&rank.store, name, rank.rank, rank.world_size, PATIENCE);
        Box::new(Self { group, works: Vec::new(), buckets: Arc::clone(buckets) })
    }
}

impl BucketHook for AllReduceHook {
    fn start(&mut self, bucket: usize, mut gradient: Tensor) -> Result<(), C10dError> {
        assert_eq!(bucket, self.works.len(), "buckets come in order");
        self.buckets.fetch_add(1, Ordering::Relaxed);
        let _ = gradient.f_div_scalar_(self.group.world_size() as f64).unwrap();
        self.works.push(self.group.all_reduce_async(&gradient, ReduceOp::Sum)?);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), C10dError> {
        self.works.drain(..).try_for_each(Work::wait)
    }
}

/// Returns an error for the first bucket, or panics.
struct FailingHook {
    panics: bool,
}

impl BucketHook for FailingHook {
    fn start(&mut self, bucket: usize, _: Tensor) -> Result<(), C10dError> {
        assert!(!self.panics, "bucket {bucket}");
        Err(C10dError::Other(datjob_c10d::ErrorDetails {
            operation: "refusing".to_owned(),
            member: None,
            message: format!("bucket {bucket}"),
        }))
    }

    fn finish(&mut self) -> Result<(), C10dError> {
        Ok(())
    }
}

#[test]
fn a_hook_averages_after_the_backward_pass() {
    for world_size in [1, 3] {
        run("hook::a_hook_averages_after_the_backward_pass", world_size, |rank: &Rank| {
            let group = rank.group();
            for channels_last in [false, true] {
                let model = Model::new(channels_last);
                let buckets = Arc::default();
                let hook = AllReduceHook::new(rank, &format!("hook-{channels_last}"), &buckets);
                let mut reducer = Reducer::with_hook(&model.parameters, &group, OPTIONS, hook).unwrap();
                // libtorch would rebuild the buckets in the second step.
                for number in 0..4 {
                    step(&model, &mut reducer, &group, number, || ()).unwrap();
                    reducer.finish().unwrap();
                    check_gradients(&model, &group, number);
                    model.descend();
                }
                assert!(buckets.load(Ordering::Relaxed) > 4, "each step has several buckets");
                let refused = reducer.update_process_group(&group).unwrap_err().to_string();
                assert!(refused.contains("create a new reducer"), "{refused}");
            }
        });
    }
}

#[test]
fn errors_of_a_hook_fail_the_backward_pass() {
    run("hook::errors_of_a_hook_fail_the_backward_pass", 1, |rank: &Rank| {
        let group = rank.group();
        for (panics, sentence) in [(false, "refusing: bucket 0"), (true, "the hook panicked")] {
            let model = Model::new(false);
            let hook = Box::new(FailingHook { panics });
            let mut reducer = Reducer::with_hook(&model.parameters, &group, OPTIONS, hook).unwrap();
            let error = step(&model, &mut reducer, &group, 0, || ()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        }
    });
}

/// Records the buckets.
struct RecordingHook(Arc<Mutex<Vec<Tensor>>>);

impl BucketHook for RecordingHook {
    fn start(&mut self, _: usize, gradient: Tensor) -> Result<(), C10dError> {
        self.0.lock().unwrap().push(gradient.copy());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), C10dError> {
        Ok(())
    }
}

/// Sums and rounding are the same in the first step of a process and in later ones.
#[test]
fn buckets_are_the_same_in_every_step() {
    run("hook::buckets_are_the_same_in_every_step", 1, |rank: &Rank| {
        let group = rank.group();
        let model = Model::new(false);
        let recorded = Arc::default();
        let hook = Box::new(RecordingHook(Arc::clone(&recorded)));
        let mut reducer = Reducer::with_hook(&model.parameters, &group, OPTIONS, hook).unwrap();
        let steps = [(); 3].map(|()| {
            step(&model, &mut reducer, &group, 0, || ()).unwrap();
            reducer.finish().unwrap();
            std::mem::take(&mut *recorded.lock().unwrap())
        });
        let [first, later @ ..] = &steps;
        assert!(first.len() > 1, "there are several buckets");
        assert!(later.iter().all(|buckets| buckets == first), "{steps:?}");
    });
}
