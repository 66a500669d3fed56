//! The operator as a process of this machine.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    admin,
    cluster::CONTROLLER_NAMESPACE,
    namespace::Namespace,
    process::{Process, Usage},
    wait::{Seen, wait_until},
};

/// Default trainer image of the operator.
pub const TRAINER_IMAGE: &str = "localhost/datjob/trainer:0.1.0";
/// How long an operator may take to lead: the Lease of a killed one must expire.
pub const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How often readiness is read.
const READY_INTERVAL: Duration = Duration::from_millis(20);

/// How to start an operator.
#[derive(Clone, Debug)]
pub struct OperatorProgram {
    /// Path of the binary.
    pub binary: PathBuf,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// Directory for its logs.
    pub logs: PathBuf,
    /// Network namespace in which it runs; `None` for the host's.
    pub namespace: Option<Namespace>,
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    identity: String,
    admin: SocketAddr,
    namespace: Option<Namespace>,
}

impl OperatorProgram {
    /// Starts an operator with an identity that no earlier one had.
    pub fn start(&self, identity: &str) -> anyhow::Result<Operator> {
        let admin = self.free_address()?;
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(&self.binary),
            None => Command::new(&self.binary),
        };
        command
            .args(["run", "--trainer-image", TRAINER_IMAGE, "--lease-namespace", CONTROLLER_NAMESPACE])
            .args(["--identity", identity, "--admin-address", &admin.to_string()])
            .env("KUBECONFIG", &self.kubeconfig)
            .env_remove("POD_NAME")
            .env_remove("DATJOB_WATCH_NAMESPACE");
        let process = Process::start(identity, command, self.logs.join(format!("{identity}.log")))?;
        Ok(Operator { process, identity: identity.to_owned(), admin, namespace: self.namespace.clone() })
    }

    fn free_address(&self) -> anyhow::Result<SocketAddr> {
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .context("no free port on the loopback interface")?;
            listener.local_addr().context("a listener has no address")
        };
        match &self.namespace {
            Some(namespace) => namespace.enter(bind),
            None => bind(),
        }
    }
}

impl Operator {
    /// Its identity in leader election.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits until /readyz answers that the operator is ready, and with `role` ("Leader" or "Standby") if there is one.
    /// Returns the time since the start of the process.
    pub async fn wait_until_ready(
        &mut self,
        role: Option<&str>,
        timeout: Duration,
    ) -> anyhow::Result<Duration> {
        let what = match role {
            Some(role) => format!("/readyz of {} to answer {role}", self.identity),
            None => format!("/readyz of {}", self.identity),
        };
        wait_until(&what, timeout, READY_INTERVAL, async || {
            self.process.check()?;
            Ok(match admin::get(self.admin, "/readyz", self.namespace.as_ref()).await {
                Ok(answer)
                    if answer.status == 200 && role.is_none_or(|role| answer.body.starts_with(role)) =>
                {
                    Seen::Done(self.process.started().elapsed())
                }
                Ok(answer) => Seen::Waiting(format!("HTTP status {}: {}", answer.status, answer.body.trim())),
                Err(error) => Seen::Waiting(format!("{error:#}")),
            })
        })
        .await
    }

    /// Fails if the process has exited.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.process.check()
    }

    /// Memory and processor time so far. Fails if the process has exited.
    pub fn sample(&mut self) -> anyhow::Result<Usage> {
        self.process.sample()
    }

    /// Sends SIGTERM; returns when it was sent.
    pub fn terminate(&self) -> anyhow::Result<Instant> {
        let now = Instant::now();
        self.process.terminate()?;
        Ok(now)
    }

    /// Sends SIGKILL; returns when it was sent.
    pub fn kill(&mut self) -> anyhow::Result<Instant> {
        let now = Instant::now();
        self.process.kill()?;
        Ok(now)
    }

    /// Sends SIGTERM and waits for the exit. Returns the time it took.
    pub async fn stop(self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.process.stop().await?;
        Ok(start.elapsed())
    }
}
