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

/// Averages buckets by an all-reduce of its own, and counts them.
struct AllReduce {
    group: ProcessGroup,
    works: Vec<Work>,
    buckets: Arc<AtomicUsize>,
}

impl AllReduce {
    fn new(rank: &Rank, name: &str, buckets: &Arc<AtomicUsize>) -> Box<Self> {
        let group = gloo(&rank.store, name, rank.rank, rank.world_size, PATIENCE);
        Box::new(Self { group, works: Vec::new(), buckets: Arc::clone(buckets) })
    }
}

impl BucketHook for AllReduce {
    fn begin(&mut self, bucket: usize, mut gradient: Tensor) -> Result<(), C10dError> {
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

/// Refuses the first bucket, or panics over it.
struct Refusing {
    panics: bool,
}

impl BucketHook for Refusing {
    fn begin(&mut self, bucket: usize, _: Tensor) -> Result<(), C10dError> {
        assert!(!self.panics, "bucket {bucket}");
        Err(C10dError::Other(datjob_c10d::Failure {
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
fn a_hook_averages_beyond_the_backward_pass() {
    for world_size in [1, 3] {
        run("hook::a_hook_averages_beyond_the_backward_pass", world_size, |rank: &Rank| {
            let group = rank.group();
            for channels_last in [false, true] {
                let model = Model::new(channels_last);
                let buckets = Arc::default();
                let hook = AllReduce::new(rank, &format!("hook-{channels_last}"), &buckets);
                let mut reducer = Reducer::with_hook(&model.parameters, &group, OPTIONS, hook).unwrap();
                // libtorch would put buckets together anew in the second.
                for number in 0..4 {
                    step(&model, &mut reducer, &group, number, || ()).unwrap();
                    reducer.finish().unwrap();
                    check_gradients(&model, &group, number);
                    model.descend();
                }
                assert!(buckets.load(Ordering::Relaxed) > 4, "there are several to a step");
                let refused = reducer.update_process_group(&group).unwrap_err().to_string();
                assert!(refused.contains("create a new reducer"), "{refused}");
            }
        });
    }
}

#[test]
fn what_a_hook_says_comes_out_of_the_backward_pass() {
    run("hook::what_a_hook_says_comes_out_of_the_backward_pass", 1, |rank: &Rank| {
        let group = rank.group();
        for (panics, sentence) in [(false, "refusing: bucket 0"), (true, "the hook panicked")] {
            let model = Model::new(false);
            let hook = Box::new(Refusing { panics });
            let mut reducer = Reducer::with_hook(&model.parameters, &group, OPTIONS, hook).unwrap();
            let error = step(&model, &mut reducer, &group, 0, || ()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        }
    });
}

/// Keeps what it is given.
struct Keeping(Arc<Mutex<Vec<Tensor>>>);

impl BucketHook for Keeping {
    fn begin(&mut self, _: usize, gradient: Tensor) -> Result<(), C10dError> {
        self.0.lock().unwrap().push(gradient.copy());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), C10dError> {
        Ok(())
    }
}

/// Sums, and what is rounded together, are the same in the first step of a process as in any other.
#[test]
fn gradients_stand_in_the_same_buckets_in_every_step() {
    run("hook::gradients_stand_in_the_same_buckets_in_every_step", 1, |rank: &Rank| {
        let group = rank.group();
        let model = Model::new(false);
        let kept = Arc::default();
        let hook = Box::new(Keeping(Arc::clone(&kept)));
        let mut reducer = Reducer::with_hook(&model.parameters, &group, OPTIONS, hook).unwrap();
        let steps = [(); 3].map(|()| {
            step(&model, &mut reducer, &group, 0, || ()).unwrap();
            reducer.finish().unwrap();
            std::mem::take(&mut *kept.lock().unwrap())
        });
        let [first, later @ ..] = &steps;
        assert!(first.len() > 1, "there are several");
        assert!(later.iter().all(|buckets| buckets == first), "{steps:?}");
    });
}
