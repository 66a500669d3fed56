//! Starts the processes of a test, one for each rank.

use std::{
    env,
    fmt::Write as _,
    io::Read,
    net::{IpAddr, Ipv4Addr},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use datjob_c10d::{GlooDevice, GlooOptions, LogLevel, ProcessGroup, Store, TcpStore, set_log_level};

const RANK: &str = "C10D_TEST_RANK";
const WORLD_SIZE: &str = "C10D_TEST_WORLD_SIZE";
const RESTARTED: &str = "C10D_TEST_RESTARTED";
const STORE_PORT: &str = "C10D_TEST_STORE_PORT";

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Timeout of operations that should succeed; long, because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// When the parent gives up on a rank.
const DEADLINE: Duration = Duration::from_secs(90);

/// The rank of this process in a test.
pub(crate) struct Rank {
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    /// Whether this process replaces one that was killed.
    pub(crate) restarted: bool,
    pub(crate) store: TcpStore,
}

impl Rank {
    fn from_environment() -> Option<Self> {
        let number = |name: &str| env::var(name).ok().map(|value| value.parse::<usize>().expect("a number"));
        let port = u16::try_from(number(STORE_PORT)?).expect("a port");
        tch::set_num_threads(1);
        set_log_level(LogLevel::Fatal);
        Some(Self {
            rank: number(RANK)?,
            world_size: number(WORLD_SIZE)?,
            restarted: env::var_os(RESTARTED).is_some(),
            store: TcpStore::connect("127.0.0.1", port, PATIENCE).expect("the parent hosts the store"),
        })
    }

    /// The group of all ranks.
    pub(crate) fn group(&self) -> ProcessGroup {
        self.group_with_timeout(PATIENCE)
    }

    pub(crate) fn group_with_timeout(&self, timeout: Duration) -> ProcessGroup {
        gloo(&self.store, "gen-0", self.rank, self.world_size, timeout)
    }
}

pub(crate) fn gloo(
    store: &Store,
    generation: &str,
    rank: usize,
    world_size: usize,
    timeout: Duration,
) -> ProcessGroup {
    let options = gloo_options(generation);
    let store = store.prefix(generation).expect("a prefix");
    ProcessGroup::gloo(&store, rank, world_size, timeout, &options).expect("the group forms")
}

pub(crate) fn gloo_options(name: &str) -> GlooOptions {
    GlooOptions { device: GlooDevice::Hostname("127.0.0.1".to_owned()), name: name.to_owned() }
}

/// The parent's view of the ranks of a test. Dropping it kills the running ones.
pub(crate) struct World {
    /// The test's path in this binary.
    name: String,
    /// None if it was killed or has exited.
    ranks: Vec<Option<Child>>,
    pub(crate) store: TcpStore,
}

impl World {
    fn start(name: &str, world_size: usize) -> Self {
        let store = TcpStore::host(LOOPBACK, 0, PATIENCE).expect("a store");
        let ranks = (0..world_size).map(|_| None).collect();
        let mut world = Self { name: name.to_owned(), ranks, store };
        for rank in 0..world_size {
            world.ranks[rank] = Some(world.command(rank).spawn().expect("the test binary starts again"));
        }
        world
    }

    fn command(&self, rank: usize) -> Command {
        let mut command = Command::new(env::current_exe().expect("the test binary has a path"));
        command
            .args(["--exact", &self.name, "--nocapture", "--test-threads=1"])
            .env(RANK, rank.to_string())
            .env(WORLD_SIZE, self.ranks.len().to_string())
            .env(STORE_PORT, self.store.port().to_string())
            .env("OMP_NUM_THREADS", "1")
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a rank that was killed again: its [`Rank::restarted`] is true.
    pub(crate) fn restart(&mut self, rank: usize) {
        assert!(self.ranks[rank].is_none(), "rank {rank} still runs");
        let child = self.command(rank).env(RESTARTED, "").spawn().expect("the test binary starts again");
        self.ranks[rank] = Some(child);
    }

    /// Waits until a rank has called [`Store::set`] with this key.
    pub(crate) fn wait_for(&self, key: &str) {
        self.store.wait(key, DEADLINE).expect("a rank sets the key");
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self, rank: usize) {
        let mut child = self.ranks[rank].take().expect("the rank runs");
        child.kill().expect("the rank is ours");
        child.wait().expect("the rank ends");
    }

    /// Sends SIGSTOP: the rank hangs with open connections until [`kill`](Self::kill).
    pub(crate) fn stop(&mut self, rank: usize) {
        let id = self.ranks[rank].as_ref().expect("the rank runs").id();
        let stopped = Command::new("sh").args(["-c", &format!("kill -STOP {id}")]).status().expect("a shell");
        assert!(stopped.success(), "rank {rank} could not be stopped");
    }

    /// Waits for all ranks that were not killed and asserts that their tests pass.
    fn finish(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        let mut report = String::new();
        let mut passed = true;
        for (rank, child) in self.ranks.iter_mut().enumerate() {
            let Some(mut child) = child.take() else { continue };
            let outputs = (read_all(child.stdout.take()), read_all(child.stderr.take()));
            let status = loop {
                if let Some(status) = child.try_wait().expect("the rank is ours") {
                    break Some(status);
                }
                if Instant::now() > deadline {
                    child.kill().expect("the rank is ours");
                    child.wait().expect("the rank ends");
                    break None;
                }
                thread::sleep(Duration::from_millis(5));
            };
            passed &= status.is_some_and(|status| status.success());
            let status = status.map_or("did not end in time".to_owned(), |status| status.to_string());
            let (stdout, stderr) = (outputs.0.join().expect("read"), outputs.1.join().expect("read"));
            write!(report, "--- rank {rank}: {status}\n{stdout}{stderr}").expect("a string");
            assert!(!passed || stdout.contains("1 passed"), "no test of this name ran:\n{report}");
        }
        assert!(passed, "a rank failed:\n{report}");
        // Visible if the test fails later, or with --nocapture.
        println!("{report}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.ranks.iter_mut().flatten() {
            // Errors cannot be handled here.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("piped at the start, taken once");
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).expect("a pipe can be read");
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Runs `body` in every rank of a world. `name` is the path of the calling test in this binary.
pub(crate) fn run(name: &str, world_size: usize, body: impl FnOnce(&Rank)) {
    run_with_parent(name, world_size, |_| (), body);
}

/// [`run`], and runs `parent` in the parent process meanwhile.
pub(crate) fn run_with_parent(
    name: &str,
    world_size: usize,
    parent: impl FnOnce(&mut World),
    body: impl FnOnce(&Rank),
) {
    match Rank::from_environment() {
        // A test may run worlds of several sizes.
        Some(rank) if rank.world_size != world_size => {}
        Some(rank) => body(&rank),
        None => {
            let mut world = World::start(name, world_size);
            parent(&mut world);
            world.finish();
        }
    }
}
