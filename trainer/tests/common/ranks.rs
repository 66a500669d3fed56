//! A world whose ranks are threads. Each rank has a separate process group.

use std::{net::Ipv4Addr, thread, time::Duration};

use datjob_c10d::{GlooDevice, GlooOptions, ProcessGroup, TcpStore};

const TIMEOUT: Duration = Duration::from_mins(1);

/// Runs `work` on every rank of a world and returns the results in the order of ranks.
pub(crate) fn run_ranks<T: Send>(world_size: usize, work: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let host = TcpStore::host(Ipv4Addr::LOCALHOST.into(), 0, TIMEOUT).unwrap();
    let port = host.port();
    thread::scope(|scope| {
        let rank = |rank| {
            let work = &work;
            scope.spawn(move || {
                let store = TcpStore::connect("127.0.0.1", port, TIMEOUT).unwrap();
                let device = GlooDevice::Hostname("127.0.0.1".into());
                let options = GlooOptions { device, name: "test".into() };
                work(ProcessGroup::gloo(&store, rank, world_size, TIMEOUT, &options).unwrap())
            })
        };
        let threads: Vec<_> = (0..world_size).map(rank).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
