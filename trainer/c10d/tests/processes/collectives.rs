//! Collectives of Gloo groups.

use datjob_c10d::{
    C10dError, ProcessGroup, ReduceOp, Reducer, Store, TcpStore, Work, contiguous_channels_last,
};
use tch::{Device, Kind, Tensor};

use crate::world::{Rank, gloo_options, run};

const CPU64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

#[test]
fn all_reduce_combines_all_ranks() {
    for world_size in [1, 2, 3] {
        run("collectives::all_reduce_combines_all_ranks", world_size, |rank: &Rank| {
            let group = rank.group();
            assert_eq!((group.rank(), group.world_size()), (rank.rank, world_size));
            let n = world_size as f64;
            let mine = rank.rank as f64 + 1.0;
            for (op, expected) in [
                (ReduceOp::Sum, n * (n + 1.0) / 2.0),
                (ReduceOp::Product, (1..=world_size).product::<usize>() as f64),
                (ReduceOp::Min, 1.0),
                (ReduceOp::Max, n),
            ] {
                for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Uint8]
                {
                    let tensor = Tensor::full([2, 3], mine, (kind, Device::Cpu));
                    group.all_reduce(&tensor, op).unwrap();
                    assert_eq!(values(&tensor), [expected; 6], "{op:?} of {kind:?}");
                }
            }
            // A single number, and a tensor that autograd follows.
            let number = Tensor::from(mine);
            group.all_reduce(&number, ReduceOp::Sum).unwrap();
            assert_eq!(values(&number), [n * (n + 1.0) / 2.0]);
            let leaf = Tensor::full([2], mine, CPU64).set_requires_grad(true);
            group.all_reduce(&leaf, ReduceOp::Max).unwrap();
            assert_eq!(values(&leaf.detach()), [n; 2]);
        });
    }
}

#[test]
fn broadcast_gives_the_roots_values() {
    for world_size in [1, 2, 3] {
        run("collectives::broadcast_gives_the_roots_values", world_size, |rank: &Rank| {
            let group = rank.group();
            for root in 0..world_size {
                let tensor = Tensor::full([4], rank.rank as f64, CPU64);
                group.broadcast(&tensor, root).unwrap();
                assert_eq!(values(&tensor), [root as f64; 4]);
            }
        });
    }
}

#[test]
fn all_gather_stacks_by_rank() {
    for world_size in [1, 2, 3] {
        run("collectives::all_gather_stacks_by_rank", world_size, |rank: &Rank| {
            let group = rank.group();
            let mine = Tensor::arange(6, CPU64).view([2, 3]) + rank.rank as f64 * 10.0;
            let size = world_size as i64;
            // Tensors of any layout are sent in logical order.
            for (given, shape) in [(mine.shallow_clone(), [size, 2, 3]), (mine.tr(), [size, 3, 2])] {
                let all = group.all_gather(&given).unwrap();
                assert_eq!(all.size(), shape);
                for other in 0..size {
                    let expected = &given - rank.rank as f64 * 10.0 + other as f64 * 10.0;
                    assert_eq!(all.get(other), expected);
                }
            }
            let numbers = group.all_gather(&Tensor::from(rank.rank as i64)).unwrap();
            assert_eq!(Vec::<i64>::try_from(numbers).unwrap(), (0..size).collect::<Vec<_>>());
        });
    }
}

#[test]
fn all_to_all_transposes_ranks() {
    for world_size in [1, 2, 3] {
        run("collectives::all_to_all_transposes_ranks", world_size, |rank: &Rank| {
            let group = rank.group();
            let size = world_size as i64;
            // Row r is for rank r.
            let mine = Tensor::arange(size * 2, CPU64).view([size, 2]) + rank.rank as f64 * 100.0;
            let received = group.all_to_all(&mine).unwrap();
            for other in 0..size {
                let expected = Tensor::arange(2, CPU64) + rank.rank as f64 * 2.0 + other as f64 * 100.0;
                assert_eq!(received.get(other), expected);
            }
            let refused = group.all_to_all(&Tensor::zeros([size + 1, 2], CPU64)).unwrap_err().to_string();
            assert!(refused.contains("first dimension must be the world size"), "{refused}");
        });
    }
}

#[test]
fn barrier_waits_for_all_ranks() {
    run("collectives::barrier_waits_for_all_ranks", 3, |rank: &Rank| {
        let group = rank.group();
        rank.store.add("before", 1).unwrap();
        group.barrier().unwrap();
        assert_eq!(rank.store.add("before", 0).unwrap(), 3);
    });
}

#[test]
fn works_run_in_the_background_and_can_be_dropped() {
    run("collectives::works_run_in_the_background_and_can_be_dropped", 2, |rank: &Rank| {
        let group = rank.group();
        let numbers: Vec<Tensor> = (0..8).map(|i| Tensor::full([100_000], i, CPU64)).collect();
        let works: Vec<_> =
            numbers.iter().map(|number| group.all_reduce_async(number, ReduceOp::Sum).unwrap()).collect();
        let gathered = group.all_gather_async(&Tensor::from(rank.rank as i64)).unwrap();
        let root = Tensor::from(rank.rank as f64);
        let broadcast = group.broadcast_async(&root, 1).unwrap();
        for work in works {
            work.wait().unwrap();
        }
        for (i, number) in numbers.iter().enumerate() {
            assert_eq!(number.double_value(&[99_999]), 2.0 * i as f64);
        }
        assert_eq!(Vec::<i64>::try_from(gathered.wait().unwrap()).unwrap(), [0, 1]);
        while !broadcast.is_completed().unwrap() {
            std::thread::yield_now();
        }
        broadcast.wait().unwrap();
        assert_eq!(root.double_value(&[]), 1.0);

        // Work and tensor are dropped while Gloo writes; a tensor in use cannot be resized.
        for _ in 0..20 {
            let mut tensor = Tensor::ones([200_000], CPU64);
            let work = group.all_reduce_async(&tensor, ReduceOp::Sum).unwrap();
            assert!(tensor.f_resize_([400_000]).is_err());
            drop(work);
            drop(tensor);
        }
        group.barrier().unwrap();
    });
}

#[test]
fn a_group_can_be_dropped_while_a_work_runs() {
    run("collectives::a_group_can_be_dropped_while_a_work_runs", 2, |rank: &Rank| {
        let group = rank.group();
        let tensor = Tensor::ones([500_000], CPU64);
        let work = group.all_reduce_async(&tensor, ReduceOp::Sum).unwrap();
        drop(group);
        work.wait().unwrap();
        assert_eq!(tensor.double_value(&[499_999]), 2.0);
    });
}

#[test]
fn broadcast_coalesced_accepts_any_kind_and_layout() {
    run("collectives::broadcast_coalesced_accepts_any_kind_and_layout", 3, |rank: &Rank| {
        let group = rank.group();
        let start = rank.rank as f64 * 1000.0;
        let weight = Tensor::arange(2 * 3 * 4 * 4, CPU64).view([2, 3, 4, 4]) + start;
        // Formats differ between ranks: values must be matched by index, not by address.
        let weight = if rank.rank == 0 { contiguous_channels_last(&weight).unwrap() } else { weight };
        let weight = weight.set_requires_grad(true);
        let steps = Tensor::from(rank.rank as i64);
        let mask = Tensor::from_slice(&[rank.rank == 1, rank.rank != 1]);
        let base = Tensor::full([3, 6], start, (Kind::Float, Device::Cpu));
        let slice = base.narrow(1, 1, 2);
        group.broadcast_coalesced(&[&weight, &steps, &mask, &slice], 1).unwrap();
        assert_eq!(weight.detach(), Tensor::arange(2 * 3 * 4 * 4, CPU64).view([2, 3, 4, 4]) + 1000.0);
        assert_eq!(steps.int64_value(&[]), 1);
        assert_eq!(Vec::<bool>::try_from(&mask).unwrap(), [true, false]);
        assert_eq!(values(&slice), [1000.0; 6]);
        // Only the slice was written.
        assert_eq!(base.double_value(&[0, 0]), start);
        assert!(weight.requires_grad());
        group.broadcast_coalesced(&[], 0).unwrap();
    });
}

#[test]
fn all_reduce_coalesced_accepts_any_layout() {
    for world_size in [1, 2, 3] {
        run("collectives::all_reduce_coalesced_accepts_any_layout", world_size, |rank: &Rank| {
            let group = rank.group();
            let image = Tensor::arange(2 * 3 * 4 * 4, CPU64).view([2, 3, 4, 4]);
            let image = contiguous_channels_last(&image).unwrap();
            let number = Tensor::from(rank.rank as f64);
            let base = Tensor::ones([3, 4], CPU64);
            let slice = base.narrow(1, 0, 2);
            group.all_reduce_coalesced(&[&image, &number, &slice], ReduceOp::Sum).unwrap();
            let n = world_size as f64;
            assert_eq!(image, Tensor::arange(2 * 3 * 4 * 4, CPU64).view([2, 3, 4, 4]) * n);
            assert_eq!(values(&number), [n * (n - 1.0) / 2.0]);
            assert_eq!(values(&slice), [n; 6]);
            assert_eq!(base.double_value(&[0, 3]), 1.0);
            group.all_reduce_coalesced(&[], ReduceOp::Sum).unwrap();
        });
    }
}

#[test]
fn rejects_tensors_that_are_not_dense() {
    run("collectives::rejects_tensors_that_are_not_dense", 2, |rank: &Rank| {
        let group = rank.group();
        let base = Tensor::ones([4, 4], CPU64);
        for tensor in [base.narrow(1, 0, 2), Tensor::ones([1], CPU64).expand([1000, 1000], false)] {
            for error in [
                group.all_reduce(&tensor, ReduceOp::Sum).unwrap_err(),
                group.broadcast(&tensor, 0).unwrap_err(),
            ] {
                assert!(error.to_string().contains("contiguous"), "{error}");
            }
        }
        let undefined = Tensor::new();
        assert!(group.all_reduce(&undefined, ReduceOp::Sum).is_err());
        assert!(group.all_reduce_async(&undefined, ReduceOp::Sum).is_err());
        assert!(group.all_gather(&undefined).is_err());
        assert!(group.broadcast_coalesced(&[&undefined], 0).is_err());
        assert!(group.all_reduce_coalesced(&[&undefined], ReduceOp::Sum).is_err());
        let count = Tensor::from(1_i64);
        assert!(group.all_reduce_coalesced(&[&base, &count], ReduceOp::Sum).is_err());
        // Nothing was sent, so the group still works.
        group.barrier().unwrap();
    });
}

#[test]
fn rejects_ranks_outside_the_world() {
    run("collectives::rejects_ranks_outside_the_world", 1, |rank: &Rank| {
        let options = gloo_options("wrong");
        let error = ProcessGroup::gloo(&rank.store, 1, 1, crate::world::PATIENCE, &options).unwrap_err();
        assert!(matches!(error, C10dError::InvalidArgument(_)), "{error}");
        let group = rank.group();
        let error = group.broadcast(&Tensor::ones([1], CPU64), 1).unwrap_err();
        assert!(matches!(error, C10dError::InvalidArgument(_)), "{error}");
        assert!(error.to_string().contains("on rank 0 of 1"), "{error}");
    });
}

#[test]
fn abort_has_no_effect_in_a_world_of_one() {
    run("collectives::abort_has_no_effect_in_a_world_of_one", 1, |rank: &Rank| {
        let group = rank.group();
        group.abort().unwrap();
        group.barrier().unwrap();
    });
}

#[test]
fn handles_can_move_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Sync>() {}
    is_send::<ProcessGroup>();
    is_send::<Reducer>();
    is_send::<Work<Tensor>>();
    is_send::<Store>();
    is_shared::<Store>();
    is_shared::<TcpStore>();
}
