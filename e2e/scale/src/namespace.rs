//! A private network namespace in which any address of a range belongs to this process.
//!
//! The namespace has no name. It exists as long as a process is in it: a holder that exits when the benchmark does. Its
//! link to the cluster disappears with it. The host's interfaces and routes do not change.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    command::run,
    wait::{Seen, wait_until},
};

/// Addresses of simulated pods.
pub const POD_RANGE: &str = "10.99.0.0/16";
/// Address of the namespace on its link to the cluster.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Names of the ends of the link.
const LINK: &str = "scale";
const CLUSTER_LINK: &str = "datjob-scale";
/// Network namespace of the embedded cluster.
const CLUSTER_NAMESPACE: &str = "/run/netns/datjob";

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    path: PathBuf,
    child: Mutex<Child>,
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Namespace {
    /// Creates a namespace in which all addresses of [`POD_RANGE`] are local, with a link to the API server.
    pub async fn create(api_server: Ipv4Addr) -> anyhow::Result<Self> {
        // cat exits at the end of its input: when this process exits, however it does.
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().context("cannot run `unshare --net cat`; install util-linux")?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let namespace = Self(Arc::new(Holder { path, child: Mutex::new(child) }));
        namespace.wait().await?;
        for arguments in [
            &["link", "set", "lo", "up"] as &[&str],
            &["route", "add", "local", POD_RANGE, "dev", "lo"],
            &["link", "add", LINK, "type", "veth", "peer", "name", CLUSTER_LINK, "netns", "datjob"],
            &["address", "add", &format!("{ADDRESS}/32"), "dev", LINK],
            &["link", "set", LINK, "up"],
            &["route", "add", &api_server.to_string(), "dev", LINK],
        ] {
            run(namespace.ip(arguments)).await?;
        }
        for arguments in [
            &["link", "set", CLUSTER_LINK, "up"] as &[&str],
            &["route", "add", &ADDRESS.to_string(), "dev", CLUSTER_LINK],
        ] {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={CLUSTER_NAMESPACE}")).arg("ip").args(arguments);
            run(command).await?;
        }
        Ok(namespace)
    }

    /// Waits until the holder is in its namespace.
    async fn wait(&self) -> anyhow::Result<()> {
        let ours = fs::read_link("/proc/self/ns/net").context("cannot read /proc/self/ns/net")?;
        wait_until("a new network namespace", Duration::from_secs(5), Duration::from_millis(5), async || {
            Ok(match fs::read_link(&self.0.path) {
                Ok(theirs) if theirs != ours => Seen::Done(()),
                Ok(_) => Seen::Waiting("`unshare --net cat` has not created it".into()),
                Err(error) => {
                    Seen::Waiting(format!("{}: {error}; creating one requires root", self.0.path.display()))
                }
            })
        })
        .await
    }

    fn ip(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("ip");
        command.args(arguments);
        command
    }

    /// A command that runs in the namespace. Its process is that of the program.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.0.path.display())).arg(program);
        command
    }

    /// Runs a function on a new thread in the namespace. Sockets that it creates stay in the namespace.
    pub fn enter<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let path = self.0.path.clone();
        let thread = thread::spawn(move || {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter the network namespace {}", path.display()))?;
            function()
        });
        thread.join().map_err(|_| anyhow!("a thread in the network namespace panicked"))?
    }
}
