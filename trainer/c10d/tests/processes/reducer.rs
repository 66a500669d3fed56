//! The reducer: averages, statistics, errors, recovery.

use datjob_c10d::{
    C10dError, ProcessGroup, ReduceOp, Reducer, ReducerOptions, contiguous_channels_last, to_channels_last_,
};
use tch::{Device, Kind, Tensor, no_grad};

use crate::world::{PATIENCE, Rank, gloo, run, run_with_parent};

const CPU64: (Kind, Device) = (Kind::Double, Device::Cpu);
/// Small, so that the model below has several buckets.
pub(crate) const OPTIONS: ReducerOptions =
    ReducerOptions { first_bucket_bytes: 256, bucket_cap_bytes: 2048, gradient_as_bucket_view: true };

/// Two convolutions and a classifier, in f64, with the same values in every process.
pub(crate) struct Model {
    pub(crate) parameters: Vec<(String, Tensor)>,
    channels_last: bool,
}

impl Model {
    pub(crate) fn new(channels_last: bool) -> Self {
        let shapes: [(&str, &[i64]); 6] = [
            ("conv1.weight", &[6, 3, 3, 3]),
            ("conv1.bias", &[6]),
            ("conv2.weight", &[8, 6, 3, 3]),
            ("conv2.bias", &[8]),
            ("linear.weight", &[10, 8]),
            ("linear.bias", &[10]),
        ];
        let parameters = shapes.map(|(name, shape)| {
            let count: i64 = shape.iter().product();
            let values = (Tensor::arange(count, CPU64) * 0.7).sin().view(shape) * 0.3;
            let parameter = values.set_requires_grad(true);
            if channels_last && parameter.dim() == 4 {
                to_channels_last_(&parameter).unwrap();
            }
            (name.to_owned(), parameter)
        });
        Self { parameters: parameters.into(), channels_last }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        self.parameters.iter().map(|(_, parameter)| parameter).collect()
    }

    /// The mean cross entropy of images [N, 3, H, W].
    fn loss(&self, images: &Tensor, labels: &Tensor) -> Tensor {
        let p = self.tensors();
        let images = if self.channels_last {
            contiguous_channels_last(images).unwrap()
        } else {
            images.shallow_clone()
        };
        let hidden = images.conv2d(p[0], Some(p[1]), [1, 1], [1, 1], [1, 1], 1).relu();
        let hidden = hidden.conv2d(p[2], Some(p[3]), [2, 2], [1, 1], [1, 1], 1).relu();
        let pooled = hidden.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        pooled.linear(p[4], Some(p[5])).cross_entropy_for_logits(labels)
    }

    /// One step of FGSM: gradients with respect to the images only, with the weights frozen.
    fn attack(&self, images: &Tensor, labels: &Tensor) -> Tensor {
        for parameter in self.tensors() {
            let _ = parameter.set_requires_grad(false);
        }
        let images = images.detach().set_requires_grad(true);
        let loss = self.loss(&images, labels);
        let gradients = Tensor::run_backward(&[&loss], &[&images], false, false);
        for parameter in self.tensors() {
            let _ = parameter.set_requires_grad(true);
        }
        (images.detach() + gradients[0].sign() * 0.03).clamp(0.0, 1.0)
    }

    fn zero_gradients(&self) {
        for parameter in self.tensors() {
            let mut gradient = parameter.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
    }

    pub(crate) fn descend(&self) {
        no_grad(|| {
            for parameter in self.tensors() {
                let _ = parameter.shallow_clone().f_sub_(&(parameter.grad() * 0.1)).unwrap();
            }
        });
    }
}

/// The images and labels of a rank.
fn batch(rank: usize, step: usize) -> (Tensor, Tensor) {
    let count = 4 * 3 * 8 * 8;
    let start = (rank * 7919 + step * 104_729) as f64;
    let images = ((Tensor::arange(count, CPU64) + start) * 1.3).sin().view([4, 3, 8, 8]) * 0.5 + 0.5;
    let labels = (Tensor::arange(4, (Kind::Int64, Device::Cpu)) * 3 + (rank + step) as i64).remainder(10);
    (images, labels)
}

/// A step of adversarial training, clean and adversarial loss together, up to the gradients.
pub(crate) fn step(
    model: &Model,
    reducer: &mut Reducer,
    group: &ProcessGroup,
    step: usize,
    before_backward: impl FnOnce(),
) -> Result<(), C10dError> {
    let (images, labels) = batch(group.rank(), step);
    model.zero_gradients();
    let adversarial = model.attack(&images, &labels);
    reducer.prepare_forward()?;
    let loss = model.loss(&images, &labels) + model.loss(&adversarial, &labels) * 6.0;
    reducer.prepare_backward()?;
    before_backward();
    loss.f_backward().map_err(|error| C10dError::from_backward(&error, group.member()))?;
    reducer.check_finished()
}

/// Compares the gradients of `step` with the mean of all ranks' gradients, computed without the reducer.
pub(crate) fn check_gradients(model: &Model, group: &ProcessGroup, step: usize) {
    let (images, labels) = batch(group.rank(), step);
    let adversarial = model.attack(&images, &labels);
    let loss = model.loss(&images, &labels) + model.loss(&adversarial, &labels) * 6.0;
    let local = Tensor::run_backward(&[&loss], &model.tensors(), false, false);
    let local: Vec<Tensor> = local.iter().map(Tensor::contiguous).collect();
    group.all_reduce_coalesced(&local.iter().collect::<Vec<_>>(), ReduceOp::Sum).unwrap();
    for ((name, parameter), sum) in model.parameters.iter().zip(local) {
        let mean = sum / group.world_size() as f64;
        let error = (parameter.grad() - &mean).abs().max().double_value(&[]);
        assert!(error < 1e-12, "{name}'s gradient is off by {error}");
        assert!(mean.abs().max().double_value(&[]) > 1e-6, "{name}'s gradient must not be zero");
    }
}

#[test]
fn gradients_are_the_mean_over_ranks() {
    for world_size in [1, 2, 3] {
        run("reducer::gradients_are_the_mean_over_ranks", world_size, |rank: &Rank| {
            let group = rank.group();
            for (channels_last, gradient_as_bucket_view) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let model = Model::new(channels_last);
                let options = ReducerOptions { gradient_as_bucket_view, ..OPTIONS };
                let mut reducer = Reducer::new(&model.parameters, &group, options).unwrap();
                // libtorch would rebuild the buckets in the second step.
                for number in 0..4 {
                    step(&model, &mut reducer, &group, number, || ()).unwrap();
                    check_gradients(&model, &group, number);
                    if channels_last {
                        assert_eq!(model.parameters[2].1.grad().stride(), [54, 1, 18, 6]);
                    }
                    model.descend();
                }
            }
        });
    }
}

#[test]
fn statistics_hold_buckets_and_times() {
    run("reducer::statistics_hold_buckets_and_times", 2, |rank: &Rank| {
        let group = rank.group();
        let model = Model::new(true);
        let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
        assert_eq!(reducer.statistics().unwrap().iterations, 0);
        for number in 0..4 {
            step(&model, &mut reducer, &group, number, || ()).unwrap();
        }
        reducer.prepare_forward().unwrap();
        let statistics = reducer.statistics().unwrap();
        assert_eq!(statistics.iterations, 4);
        let bytes: usize = model.tensors().iter().map(|parameter| parameter.numel() * 8).sum();
        assert_eq!(statistics.bucket_bytes.iter().sum::<u64>(), bytes as u64);
        assert!(statistics.bucket_bytes.len() > 1, "{statistics:?}");
        for times in [statistics.last, statistics.mean] {
            assert!(!times.forward_compute.is_zero(), "{statistics:?}");
            assert!(!times.backward_compute.is_zero(), "{statistics:?}");
            assert!(!times.backward_communication.is_zero(), "{statistics:?}");
            assert!(times.backward_overlap <= times.backward_communication, "{statistics:?}");
        }
    });
}

#[test]
fn unprepared_backward_passes_accumulate_local_gradients() {
    run("reducer::unprepared_backward_passes_accumulate_local_gradients", 2, |rank: &Rank| {
        let group = rank.group();
        let (model, reference) = (Model::new(false), Model::new(false));
        let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
        for number in 0..3 {
            model.zero_gradients();
            reference.zero_gradients();
            let ((clean, labels), (more, more_labels)) =
                (batch(rank.rank, number), batch(rank.rank, 100 + number));
            reference.loss(&clean, &labels).f_backward().unwrap();
            reference.loss(&more, &more_labels).f_backward().unwrap();

            model.loss(&clean, &labels).f_backward().unwrap();
            reducer.prepare_forward().unwrap();
            let loss = model.loss(&more, &more_labels);
            reducer.prepare_backward().unwrap();
            loss.f_backward().unwrap();
            reducer.check_finished().unwrap();

            for (parameter, reference) in model.tensors().iter().zip(reference.tensors()) {
                let mean = reference.grad().copy();
                group.all_reduce(&mean, ReduceOp::Sum).unwrap();
                let error = (parameter.grad() - mean / 2.0).abs().max().double_value(&[]);
                assert!(error < 1e-12, "off by {error}");
            }
        }
    });
}

#[test]
fn dropping_the_reducer_removes_its_hooks() {
    run("reducer::dropping_the_reducer_removes_its_hooks", 1, |rank: &Rank| {
        let group = rank.group();
        let model = Model::new(false);
        let (images, labels) = batch(0, 0);
        for _ in 0..3 {
            let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
            step(&model, &mut reducer, &group, 0, || ()).unwrap();
            drop(reducer);
            model.loss(&images, &labels).f_backward().unwrap();
        }
        // A reducer outlives the caller's handles to its parameters and its group.
        let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
        drop((model, group));
        reducer.prepare_forward().unwrap();
    });
}

#[test]
fn reports_a_parameter_without_gradient() {
    run("reducer::reports_a_parameter_without_gradient", 2, |rank: &Rank| {
        let group = rank.group();
        let mut model = Model::new(false);
        model.parameters.push(("idle.weight".to_owned(), Tensor::ones([3], CPU64).set_requires_grad(true)));
        let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
        let error = step(&model, &mut reducer, &group, 0, || ()).unwrap_err();
        assert!(matches!(error, C10dError::Other(_)), "{error}");
        assert!(!error.is_communication());
        assert!(error.to_string().contains("idle.weight"), "{error}");
    });
}

#[test]
fn all_ranks_reject_models_that_differ() {
    run("reducer::all_ranks_reject_models_that_differ", 3, |rank: &Rank| {
        let group = rank.group();
        let odd = rank.rank == 2;
        let tensor = |shape: &[i64], kind| Tensor::ones(shape, (kind, Device::Cpu)).set_requires_grad(true);
        let one = |name: &str, shape: &[i64], kind| vec![(name.to_owned(), tensor(shape, kind))];
        let ours = || one("weight", &[2, 3, 4, 4], Kind::Double);
        let channels_last = || {
            let parameters = ours();
            to_channels_last_(&parameters[0].1).unwrap();
            parameters
        };
        let mut longer = ours();
        longer.extend(one("bias", &[2], Kind::Double));
        let cases = [
            ("weight", one("weight", &[2, 3, 4, 5], Kind::Double)),
            ("weight", one("weight", &[2, 3], Kind::Double)),
            ("weight", one("weight", &[2, 3, 4, 4], Kind::Float)),
            ("heavy", one("heavy", &[2, 3, 4, 4], Kind::Double)),
            ("weight", channels_last()),
            ("bias", longer),
        ];
        for (named, theirs) in cases {
            let parameters = if odd { theirs } else { ours() };
            let error = Reducer::new(&parameters, &group, OPTIONS).unwrap_err();
            assert!(matches!(error, C10dError::ModelMismatch(_)), "{error}");
            assert!(error.to_string().contains(named), "{error}");
            assert!(error.to_string().contains("rank 2 has"), "{error}");
        }
        let options = ReducerOptions { bucket_cap_bytes: if odd { 1024 } else { 2048 }, ..OPTIONS };
        let error = Reducer::new(&ours(), &group, options).unwrap_err();
        assert!(error.to_string().contains("bucket_cap_bytes"), "{error}");
        // No rank is still waiting.
        group.barrier().unwrap();
        Reducer::new(&ours(), &group, OPTIONS).unwrap();
    });
}

#[test]
fn rejects_invalid_parameters_and_options() {
    run("reducer::rejects_invalid_parameters_and_options", 1, |rank: &Rank| {
        let group = rank.group();
        let leaf = || Tensor::ones([2], CPU64).set_requires_grad(true);
        let named = |tensor| vec![("weight".to_owned(), tensor)];
        for parameters in
            [named(Tensor::ones([2], CPU64)), named(leaf() * 2.0), named(Tensor::new()), Vec::new()]
        {
            let error = Reducer::new(&parameters, &group, OPTIONS).unwrap_err();
            assert!(matches!(error, C10dError::InvalidArgument(_)), "{error}");
        }
        let options = ReducerOptions { first_bucket_bytes: 0, ..OPTIONS };
        let error = Reducer::new(&named(leaf()), &group, options).unwrap_err();
        assert!(error.to_string().contains("first_bucket_bytes"), "{error}");
    });
}

#[test]
fn reset_recovers_from_a_failed_step() {
    run("reducer::reset_recovers_from_a_failed_step", 2, |rank: &Rank| {
        let group = rank.group();
        let model = Model::new(false);
        let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
        for number in 0..6 {
            if number % 2 == 1 {
                // A step whose backward pass reaches one parameter only.
                reducer.prepare_forward().unwrap();
                let loss = model.parameters[5].1.sum(Kind::Double);
                reducer.prepare_backward().unwrap();
                loss.f_backward().unwrap();
                assert!(reducer.check_finished().is_err());
                assert!(reducer.prepare_forward().and_then(|()| reducer.prepare_backward()).is_err());
                reducer.reset().unwrap();
                assert!(!model.parameters[5].1.grad().defined());
            }
            step(&model, &mut reducer, &group, number, || ()).unwrap();
            check_gradients(&model, &group, number);
        }
    });
}

/// Rank 2 dies while the others are in their backward passes. They continue as two ranks; then a new process replaces it.
#[test]
fn training_continues_when_a_rank_dies_in_backward_and_is_replaced() {
    run_with_parent(
        "reducer::training_continues_when_a_rank_dies_in_backward_and_is_replaced",
        3,
        |world| {
            world.wait_for("rank-2-lags");
            world.wait_for("survivors-wait");
            world.kill(2);
            world.wait_for("two-are-done");
            world.restart(2);
        },
        |rank: &Rank| {
            let store = &rank.store;
            let model = Model::new(true);
            let as_three = |reducer: &mut Reducer, group: &ProcessGroup| {
                for number in 20..23 {
                    step(&model, reducer, group, number, || ()).unwrap();
                    check_gradients(&model, group, number);
                }
            };
            if rank.restarted {
                let group = gloo(store, "gen-2", 2, 3, PATIENCE);
                let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
                return as_three(&mut reducer, &group);
            }

            let group = rank.group();
            let mut reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
            for number in 0..3 {
                step(&model, &mut reducer, &group, number, || ()).unwrap();
            }
            let error = step(&model, &mut reducer, &group, 3, || {
                if rank.rank == 2 {
                    store.set("rank-2-lags", "").unwrap();
                    store.get("never").unwrap();
                } else if store.add("survivors", 1).unwrap() == 2 {
                    store.set("survivors-wait", "").unwrap();
                }
            })
            .unwrap_err();
            assert!(matches!(error, C10dError::PeerLost(_)), "{error}");
            assert!(error.to_string().contains("of 3"), "{error}");
            drop(group);
            reducer.release_process_group().unwrap();
            // The release drops the gradients.
            assert!(!model.parameters[0].1.grad().defined());

            let group = gloo(store, "gen-1", rank.rank, 2, PATIENCE);
            if rank.rank == 0 {
                reducer.update_process_group(&group).unwrap();
            } else {
                // A new reducer works with an updated one.
                drop(reducer);
                reducer = Reducer::new(&model.parameters, &group, OPTIONS).unwrap();
            }
            for number in 10..13 {
                step(&model, &mut reducer, &group, number, || ()).unwrap();
                check_gradients(&model, &group, number);
            }
            store.set("two-are-done", "").unwrap();
            // This time without releasing the old group first.
            let group = gloo(store, "gen-2", rank.rank, 3, PATIENCE);
            reducer.update_process_group(&group).unwrap();
            as_three(&mut reducer, &group);
        },
    );
}
