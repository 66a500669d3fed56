//! Lost peers, hanging peers and lost stores.

use std::{
    thread,
    time::{Duration, Instant},
};

use datjob_c10d::{C10dError, ProcessGroup, ReduceOp, TcpStore};
use tch::{Device, Kind, Tensor};

use crate::world::{LOOPBACK, PATIENCE, Rank, gloo, gloo_options, run, run_with_parent};

fn ones() -> Tensor {
    Tensor::ones([1_000_000], (Kind::Float, Device::Cpu))
}

/// Blocks until this process is killed.
fn sleep_forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_peer_killed_in_all_reduce_is_lost_immediately() {
    run_with_parent(
        "failures::a_peer_killed_in_all_reduce_is_lost_immediately",
        2,
        |world| {
            world.wait_for("waiting");
            world.kill(1);
        },
        |rank: &Rank| {
            let group = rank.group();
            if rank.rank == 1 {
                sleep_forever();
            }
            let start = Instant::now();
            let tensor = ones();
            let work = group.all_reduce_async(&tensor, ReduceOp::Sum).unwrap();
            rank.store.set("waiting", "").unwrap();
            let error = work.wait().unwrap_err();
            assert!(matches!(error, C10dError::PeerLost(_)), "{error}");
            assert!(error.is_communication());
            assert!(error.to_string().contains("all_reduce on rank 0 of 2"), "{error}");
            assert!(start.elapsed() < PATIENCE, "not before the timeout");
            println!("{error}");
            // The group stays broken and returns errors.
            let error = group.all_reduce(&tensor, ReduceOp::Sum).unwrap_err();
            assert!(error.is_communication(), "{error}");
            println!("{error}");
        },
    );
}

#[test]
fn a_peer_that_hangs_times_out() {
    run_with_parent(
        "failures::a_peer_that_hangs_times_out",
        2,
        |world| {
            world.wait_for("formed");
            world.stop(1);
            world.store.set("stopped", "").unwrap();
            world.wait_for("timed-out");
            world.kill(1);
        },
        |rank: &Rank| {
            let timeout = Duration::from_secs(1);
            let group = gloo(&rank.store, "gen-0", rank.rank, 2, PATIENCE);
            drop(group);
            let group = gloo(&rank.store, "gen-1", rank.rank, 2, timeout);
            if rank.rank == 1 {
                rank.store.set("formed", "").unwrap();
                sleep_forever();
            }
            rank.store.wait("stopped", PATIENCE).unwrap();
            let start = Instant::now();
            let error = group.all_reduce(&ones(), ReduceOp::Sum).unwrap_err();
            assert!(matches!(error, C10dError::Timeout(_)), "{error}");
            assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
            println!("{error}");
            let error = group.barrier().unwrap_err();
            assert!(error.is_communication(), "{error}");
            println!("{error}");
            drop(group);
            rank.store.set("timed-out", "").unwrap();
        },
    );
}

#[test]
fn a_store_whose_host_died_is_lost() {
    run_with_parent(
        "failures::a_store_whose_host_died_is_lost",
        2,
        |world| {
            world.wait_for("connected");
            world.kill(0);
        },
        |rank: &Rank| {
            if rank.rank == 0 {
                let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
                rank.store.set("port", host.port().to_string()).unwrap();
                sleep_forever();
            }
            let port = String::from_utf8(rank.store.get("port").unwrap()).unwrap().parse().unwrap();
            let store = TcpStore::connect("127.0.0.1", port, PATIENCE).unwrap();
            store.set("key", "value").unwrap();
            rank.store.set("connected", "").unwrap();
            let errors = [
                store.wait("never", PATIENCE).unwrap_err(),
                store.add("count", 1).unwrap_err(),
                store.get("key").unwrap_err(),
            ];
            for error in errors {
                println!("{error}");
                assert!(matches!(error, C10dError::StoreLost(_)), "{error}");
                assert!(error.to_string().starts_with("cannot reach the store: "), "{error}");
            }
            let error = ProcessGroup::gloo(&store, 0, 2, PATIENCE, &gloo_options("gen-0")).unwrap_err();
            println!("{error}");
            assert!(error.is_communication(), "{error}");
        },
    );
}

#[test]
fn creating_a_group_without_all_members_times_out() {
    run("failures::creating_a_group_without_all_members_times_out", 1, |rank: &Rank| {
        let options = gloo_options("gen-0");
        let error = ProcessGroup::gloo(&rank.store, 0, 2, Duration::from_secs(1), &options).unwrap_err();
        println!("{error}");
        assert!(matches!(error, C10dError::Timeout(_)), "{error}");
    });
}

#[test]
fn creating_a_group_fails_if_a_member_dies() {
    run_with_parent(
        "failures::creating_a_group_fails_if_a_member_dies",
        2,
        |world| {
            world.wait_for("forming");
            world.kill(1);
        },
        |rank: &Rank| {
            if rank.rank == 1 {
                rank.store.set("forming", "").unwrap();
                sleep_forever();
            }
            let options = gloo_options("gen-0");
            let error = ProcessGroup::gloo(&rank.store, 0, 2, Duration::from_secs(1), &options).unwrap_err();
            println!("{error}");
            assert!(error.is_communication(), "{error}");
        },
    );
}

/// Of five ranks in a ring, most do not communicate with the rank that dies. They get an error when the others release the
/// group.
#[test]
fn the_loss_of_a_peer_propagates_as_groups_are_dropped() {
    run_with_parent(
        "failures::the_loss_of_a_peer_propagates_as_groups_are_dropped",
        5,
        |world| {
            world.wait_for("waiting");
            world.kill(2);
        },
        |rank: &Rank| {
            let group = rank.group();
            if rank.rank == 2 {
                sleep_forever();
            }
            let start = Instant::now();
            let tensors: Vec<Tensor> = (0..4).map(|_| ones()).collect();
            let start_work = |tensor| group.all_reduce_async(tensor, ReduceOp::Sum).unwrap();
            let works: Vec<_> = tensors.iter().map(start_work).collect();
            if rank.store.add("started", 1).unwrap() == 4 {
                rank.store.set("waiting", "").unwrap();
            }
            let error = works.into_iter().next().unwrap().wait().unwrap_err();
            println!("{error} after {:?}", start.elapsed());
            assert!(matches!(error, C10dError::PeerLost(_)), "{error}");
            // Waits for the other works, which fail as well.
            drop(group);
            assert!(start.elapsed() < PATIENCE, "not before the timeout");
        },
    );
}

#[test]
fn abort_fails_the_peers_immediately() {
    run("failures::abort_fails_the_peers_immediately", 2, |rank: &Rank| {
        let group = rank.group();
        if rank.rank == 0 {
            rank.store.wait("waiting", PATIENCE).unwrap();
            group.abort().unwrap();
            group.abort().unwrap();
            assert!(group.barrier().unwrap_err().is_communication());
            // The connections are closed although the group is still here.
            rank.store.wait("aborted", PATIENCE).unwrap();
            return;
        }
        let start = Instant::now();
        let tensor = ones();
        let work = group.all_reduce_async(&tensor, ReduceOp::Sum).unwrap();
        rank.store.set("waiting", "").unwrap();
        let error = work.wait().unwrap_err();
        println!("{error}");
        assert!(matches!(error, C10dError::PeerLost(_)), "{error}");
        assert!(start.elapsed() < PATIENCE, "not before the timeout");
        rank.store.set("aborted", "").unwrap();
    });
}

#[test]
fn groups_can_be_created_again_in_the_same_processes() {
    run("failures::groups_can_be_created_again_in_the_same_processes", 3, |rank: &Rank| {
        for generation in 0..3 {
            // Ranks change, as they do when members join and leave.
            let new_rank = (rank.rank + generation) % 3;
            let group = gloo(&rank.store, &format!("gen-{generation}"), new_rank, 3, PATIENCE);
            let all = group.all_gather(&Tensor::from(rank.rank as i64)).unwrap();
            let expected: Vec<i64> = (0..3).map(|place| (place + 3 - generation as i64) % 3).collect();
            assert_eq!(Vec::<i64>::try_from(all).unwrap(), expected);
        }
    });
}
